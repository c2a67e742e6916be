/*
 * nvme_format.h: the words of NVMe (Base 2.0, NVM Command Set 1.0, over Fabrics) as they stand in commands and data.
 *
 * Layouts only: no I/O, no policy. The target (data/frontend/nvmf) and a host read and write the same structs. All integers
 * are little-endian. What the project never uses is left as reserved bytes, so that every offset that is named can be held
 * against the specification: the static asserts give it in the specification's own numbers.
 *
 * A status in this code is the 15-bit value without the phase tag: code, type << 8, NVME_STATUS_DNR. On the wire it is shifted
 * left by one; nvme_cqe_status() and nvme_cqe_set() do that. Texts for it are in nvme_status.h.
 */
#ifndef OXBOW_DATA_NVME_NVME_FORMAT_H
#define OXBOW_DATA_NVME_NVME_FORMAT_H

#include "base/bytes.h"

#define NVME_NQN_FIELD	   256 /* bytes of a name's field; the name is NUL-terminated and at most NVME_NQN_MAX */
#define NVME_NQN_MAX	   223
#define NVME_NQN_DISCOVERY "nqn.2014-08.org.nvmexpress.discovery"
#define NVME_NSID_ALL	   0xffffffffu
#define NVME_CNTLID_ANY	   0xffffu
#define NVME_ADMIN_QUEUE   0

/* ---- commands and completions --------------------------------------------------------------------------------------- */

struct nvme_sgl {
	le64 address; /* NVME_SGL_INCAPSULE: an offset into the capsule's data */
	le32 length;
	uint8_t reserved[3];
	uint8_t identifier;
};

#define NVME_SGL_INCAPSULE 0x01 /* data block, by offset */
#define NVME_SGL_TRANSPORT 0x5a /* transport data block: R2T or C2HData */

struct nvme_sqe {
	uint8_t opcode;
	uint8_t flags;
	le16 cid;
	le32 nsid; /* Fabrics commands: its first byte is the command's type */
	le32 cdw2, cdw3;
	le64 metadata;
	struct nvme_sgl sgl;
	le32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};

#define NVME_SQE_FUSE_MASK   0x03
#define NVME_SQE_FUSE_FIRST  0x01
#define NVME_SQE_FUSE_SECOND 0x02
#define NVME_SQE_PSDT_MASK   0xc0
#define NVME_SQE_PSDT_SGL    0x40 /* the only form over Fabrics */

struct nvme_cqe {
	le64 result; /* dwords 0 and 1 */
	le16 sq_head, sq_id, cid, status;
};

static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");
static_assert(sizeof(struct nvme_sqe) == 64 && offsetof(struct nvme_sqe, sgl) == 24 &&
		      offsetof(struct nvme_sqe, cdw10) == 40,
	      "submission queue entry");
static_assert(sizeof(struct nvme_cqe) == 16 && offsetof(struct nvme_cqe, status) == 14,
	      "completion queue entry");

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_KEEP_ALIVE = 0x18,
	NVME_FABRICS = 0x7f, /* on any queue */
};

enum nvme_io_opcode {
	NVME_IO_FLUSH = 0x00,
	NVME_IO_WRITE = 0x01,
	NVME_IO_READ = 0x02,
	NVME_IO_WRITE_UNCORRECTABLE = 0x04,
	NVME_IO_COMPARE = 0x05,
	NVME_IO_WRITE_ZEROES = 0x08,
	NVME_IO_DATASET_MANAGEMENT = 0x09,
	NVME_IO_VERIFY = 0x0c,
	NVME_IO_RESERVATION_REGISTER = 0x0d,
	NVME_IO_RESERVATION_REPORT = 0x0e,
	NVME_IO_RESERVATION_ACQUIRE = 0x11,
	NVME_IO_RESERVATION_RELEASE = 0x15,
	NVME_IO_COPY = 0x19,
};

/* Which way a command's data goes, by the two low bits of its opcode (Fabrics: of its type). */
#define NVME_OPCODE_DATA_TO_CONTROLLER 1
#define NVME_OPCODE_DATA_TO_HOST       2

/* ---- status ----------------------------------------------------------------------------------------------------------- */

#define NVME_STATUS_DNR	      0x4000 /* do not retry */
#define NVME_STATUS_MORE      0x2000
#define NVME_STATUS_CODE_MASK 0x07ff /* type and code */

/*      name                      value   text */
#define NVME_STATUSES(X)                                                                                     \
	X(SUCCESS, 0x000, "success")                                                                         \
	X(INVALID_OPCODE, 0x001, "invalid command opcode")                                                   \
	X(INVALID_FIELD, 0x002, "invalid field in command")                                                  \
	X(CID_CONFLICT, 0x003, "command identifier conflict")                                                \
	X(DATA_TRANSFER_ERROR, 0x004, "data transfer error")                                                 \
	X(POWER_LOSS, 0x005, "aborted by loss of power")                                                     \
	X(INTERNAL, 0x006, "internal error")                                                                 \
	X(ABORT_REQUESTED, 0x007, "aborted on request")                                                      \
	X(ABORTED_SQ_DELETION, 0x008, "aborted by the deletion of its queue")                                \
	X(FUSED_FAILED, 0x009, "aborted by the failure of its fused companion")                              \
	X(FUSED_MISSING, 0x00a, "aborted for want of its fused companion")                                   \
	X(INVALID_NAMESPACE, 0x00b, "invalid namespace or format")                                           \
	X(SEQUENCE_ERROR, 0x00c, "command sequence error")                                                   \
	X(SGL_SEGMENT_INVALID, 0x00d, "invalid SGL segment descriptor")                                      \
	X(SGL_COUNT_INVALID, 0x00e, "invalid number of SGL descriptors")                                     \
	X(SGL_LENGTH_INVALID, 0x00f, "invalid data SGL length")                                              \
	X(SGL_TYPE_INVALID, 0x011, "invalid SGL descriptor type")                                            \
	X(ATOMIC_UNIT, 0x014, "atomic write unit exceeded")                                                  \
	X(OPERATION_DENIED, 0x015, "operation denied")                                                       \
	X(SGL_OFFSET_INVALID, 0x016, "invalid SGL offset")                                                   \
	X(HOSTID_INCONSISTENT, 0x018, "inconsistent format of the host identifier")                          \
	X(KEEP_ALIVE_EXPIRED, 0x019, "keep alive timer expired")                                             \
	X(KEEP_ALIVE_INVALID, 0x01a, "invalid keep alive time-out")                                          \
	X(PREEMPT_ABORT, 0x01b, "aborted by a preempt and abort")                                            \
	X(WRITE_PROTECTED, 0x020, "the namespace is write-protected")                                        \
	X(INTERRUPTED, 0x021, "command interrupted")                                                         \
	X(TRANSIENT_TRANSPORT, 0x022, "transient transport error")                                           \
	X(LBA_RANGE, 0x080, "logical block out of range")                                                    \
	X(CAPACITY_EXCEEDED, 0x081, "capacity exceeded")                                                     \
	X(NAMESPACE_NOT_READY, 0x082, "namespace not ready")                                                 \
	X(RESERVATION_CONFLICT, 0x083, "reservation conflict")                                               \
	X(INVALID_QUEUE_ID, 0x101, "invalid queue identifier")                                               \
	X(INVALID_QUEUE_SIZE, 0x102, "invalid queue size")                                                   \
	X(ABORT_LIMIT, 0x103, "abort command limit exceeded")                                                \
	X(ASYNC_EVENT_LIMIT, 0x105, "asynchronous event request limit exceeded")                             \
	X(INVALID_LOG_PAGE, 0x109, "invalid log page")                                                       \
	X(FEATURE_NOT_SAVEABLE, 0x10d, "feature identifier not saveable")                                    \
	X(FEATURE_NOT_CHANGEABLE, 0x10e, "feature not changeable")                                           \
	X(FEATURE_NOT_NAMESPACE, 0x10f, "feature not namespace specific")                                    \
	/* 0x180 and up mean one thing to a Fabrics command and another to an I/O command. */                \
	X(CONNECT_FORMAT, 0x180, "connect: incompatible format")                                             \
	X(CONNECT_BUSY, 0x181, "connect: controller busy")                                                   \
	X(CONNECT_INVALID, 0x182, "connect: invalid parameters")                                             \
	X(CONNECT_RESTART, 0x183, "connect: restart discovery")                                              \
	X(CONNECT_HOST, 0x184, "connect: invalid host")                                                      \
	X(CONNECT_QUEUE_TYPE, 0x185, "invalid queue type")                                                   \
	X(DISCOVER_RESTART, 0x190, "discover: restart")                                                      \
	X(AUTH_REQUIRED, 0x191, "authentication required")                                                   \
	X(WRITE_FAULT, 0x280, "write fault")                                                                 \
	X(READ_ERROR, 0x281, "unrecovered read error")                                                       \
	X(COMPARE_FAILURE, 0x285, "compare failure")                                                         \
	X(ACCESS_DENIED, 0x286, "access denied")                                                             \
	X(DEALLOCATED_BLOCK, 0x287, "deallocated or unwritten logical block")                                \
	X(PATH_INTERNAL, 0x300, "internal path error")                                                       \
	X(ANA_PERSISTENT_LOSS, 0x301, "asymmetric access persistent loss")                                   \
	X(ANA_INACCESSIBLE, 0x302, "asymmetric access inaccessible")                                         \
	X(ANA_TRANSITION, 0x303, "asymmetric access transition")                                             \
	X(HOST_PATH, 0x370, "host pathing error")                                                            \
	X(HOST_ABORTED, 0x371, "command aborted by the host")

enum nvme_status {
#define NVME_STATUS_ENUM(name, value, text) NVME_STATUS_##name = (value),
	NVME_STATUSES(NVME_STATUS_ENUM)
#undef NVME_STATUS_ENUM
};

/* I/O commands use these for the values Connect uses otherwise. */
#define NVME_STATUS_CONFLICTING_ATTRIBUTES 0x180
#define NVME_STATUS_INVALID_PROTECTION	   0x181
#define NVME_STATUS_READ_ONLY_RANGE	   0x182
#define NVME_STATUS_SIZE_LIMIT		   0x183

static inline uint16_t nvme_cqe_status(const struct nvme_cqe *e)
{
	return le16_get(e->status) >> 1;
}

static inline struct nvme_cqe nvme_cqe_set(uint16_t cid, uint16_t sq_id, uint16_t sq_head, uint16_t status,
					   uint64_t result)
{
	return (struct nvme_cqe){
		.result = le64_of(result),
		.sq_head = le16_of(sq_head),
		.sq_id = le16_of(sq_id),
		.cid = le16_of(cid),
		.status = le16_of((uint16_t)(status << 1)),
	};
}

/* ---- I/O commands -------------------------------------------------------------------------------------------------------- */

/* Of READ, WRITE, COMPARE, WRITE ZEROES, VERIFY: cdw10-11 the first block, cdw12 the rest. */
#define NVME_RW_BLOCKS_MASK 0x0000ffffu /* count - 1 */
#define NVME_RW_DEALLOCATE  (1u << 25)	/* WRITE ZEROES */
#define NVME_RW_PRINFO_MASK (0xfu << 26)
#define NVME_RW_FUA	    (1u << 30)
#define NVME_RW_LIMITED	    (1u << 31)

static inline uint64_t nvme_rw_lba(const struct nvme_sqe *e)
{
	return (uint64_t)le32_get(e->cdw11) << 32 | le32_get(e->cdw10);
}

static inline uint32_t nvme_rw_blocks(const struct nvme_sqe *e)
{
	return (le32_get(e->cdw12) & NVME_RW_BLOCKS_MASK) + 1;
}

static inline void nvme_rw_set(struct nvme_sqe *e, uint64_t lba, uint32_t blocks, uint32_t cdw12_flags)
{
	e->cdw10 = le32_of((uint32_t)lba);
	e->cdw11 = le32_of((uint32_t)(lba >> 32));
	e->cdw12 = le32_of((blocks - 1) | cdw12_flags);
}

struct nvme_dsm_range {
	le32 attributes;
	le32 blocks;
	le64 lba;
};
#define NVME_DSM_RANGES_MAX	  256 /* cdw10 bits 7:0: count - 1 */
#define NVME_DSM_CDW11_DEALLOCATE (1u << 2)
static_assert(sizeof(struct nvme_dsm_range) == 16, "dataset management range");

/* ---- identify ------------------------------------------------------------------------------------------------------------- */

#define NVME_IDENTIFY_BYTES 4096

enum nvme_cns { /* cdw10 bits 7:0; bits 31:16 a controller id; cdw11 bits 31:24 the command set */
		NVME_CNS_NAMESPACE = 0x00,
		NVME_CNS_CONTROLLER = 0x01,
		NVME_CNS_ACTIVE_NAMESPACES = 0x02,
		NVME_CNS_NAMESPACE_DESCRIPTORS = 0x03,
		NVME_CNS_NVM_SETS = 0x04,
		NVME_CNS_CSI_NAMESPACE = 0x05,
		NVME_CNS_CSI_CONTROLLER = 0x06,
		NVME_CNS_CSI_ACTIVE_NAMESPACES = 0x07,
		NVME_CNS_INDEPENDENT_NAMESPACE = 0x08,
		NVME_CNS_ALLOCATED_NAMESPACES = 0x10,
		NVME_CNS_ALLOCATED_NAMESPACE = 0x11,
		NVME_CNS_NAMESPACE_CONTROLLERS = 0x12,
		NVME_CNS_CONTROLLERS = 0x13,
		NVME_CNS_PRIMARY_CAPABILITIES = 0x14,
		NVME_CNS_SECONDARY_CONTROLLERS = 0x15,
		NVME_CNS_COMMAND_SETS = 0x1c,
};
#define NVME_CSI_NVM 0

struct nvme_id_ctrl {
	le16 vid, ssvid;
	char sn[20];
	char mn[40];
	char fr[8];
	uint8_t rab, ieee[3];
	uint8_t cmic, mdts;
	le16 cntlid;
	le32 ver, rtd3r, rtd3e, oaes, ctratt;
	uint8_t reserved_100[11];
	uint8_t cntrltype;
	uint8_t fguid[16];
	le16 crdt[3];
	uint8_t reserved_134[122];
	le16 oacs;
	uint8_t acl, aerl, frmw, lpa, elpe, npss, avscc, apsta;
	le16 wctemp, cctemp, mtfa;
	le32 hmpre, hmmin;
	uint8_t tnvmcap[16], unvmcap[16];
	le32 rpmbs;
	le16 edstt;
	uint8_t dsto, fwug;
	le16 kas, hctma, mntmt, mxtmt;
	le32 sanicap, hmminds;
	le16 hmmaxd, nsetidmax, endgidmax;
	uint8_t anatt, anacap;
	le32 anagrpmax, nanagrpid, pels;
	le16 domainid;
	uint8_t reserved_358[154];
	uint8_t sqes, cqes;
	le16 maxcmd;
	le32 nn;
	le16 oncs, fuses;
	uint8_t fna, vwc;
	le16 awun, awupf;
	uint8_t icsvscc, nwpc;
	le16 acwu, ocfs;
	le32 sgls, mnan;
	uint8_t reserved_544[224];
	char subnqn[NVME_NQN_FIELD];
	uint8_t reserved_1024[768];
	le32 ioccsz, iorcsz; /* of a capsule, in units of 16 bytes */
	le16 icdoff;
	uint8_t fcatt, msdbd;
	le16 ofcs;
	uint8_t dctype;
	uint8_t reserved_1807[241];
	uint8_t power_states[32][32];
	uint8_t vendor[1024];
};

static_assert(
	sizeof(struct nvme_id_ctrl) == NVME_IDENTIFY_BYTES && offsetof(struct nvme_id_ctrl, cmic) == 76 &&
		offsetof(struct nvme_id_ctrl, oaes) == 92 &&
		offsetof(struct nvme_id_ctrl, cntrltype) == 111 &&
		offsetof(struct nvme_id_ctrl, oacs) == 256 && offsetof(struct nvme_id_ctrl, tnvmcap) == 280 &&
		offsetof(struct nvme_id_ctrl, kas) == 320 && offsetof(struct nvme_id_ctrl, anatt) == 342 &&
		offsetof(struct nvme_id_ctrl, domainid) == 356 &&
		offsetof(struct nvme_id_ctrl, sqes) == 512 && offsetof(struct nvme_id_ctrl, oncs) == 520 &&
		offsetof(struct nvme_id_ctrl, sgls) == 536 && offsetof(struct nvme_id_ctrl, subnqn) == 768 &&
		offsetof(struct nvme_id_ctrl, ioccsz) == 1792 &&
		offsetof(struct nvme_id_ctrl, dctype) == 1806 &&
		offsetof(struct nvme_id_ctrl, power_states) == 2048,
	"Identify Controller");

#define NVME_CMIC_MULTI_PORT	      0x01
#define NVME_CMIC_MULTI_CONTROLLER    0x02
#define NVME_CMIC_ANA		      0x08
#define NVME_CNTRLTYPE_IO	      1
#define NVME_CNTRLTYPE_DISCOVERY      2
#define NVME_CTRATT_HOSTID_128	      (1u << 0)
#define NVME_CTRATT_TBKAS	      (1u << 6) /* traffic based keep alive */
#define NVME_OAES_NAMESPACE	      (1u << 8) /* these are also the bits of the feature that asks for them */
#define NVME_OAES_FIRMWARE	      (1u << 9)
#define NVME_OAES_ANA		      (1u << 11)
#define NVME_OAES_DISCOVERY	      (1u << 31)
#define NVME_LPA_EFFECTS	      0x02
#define NVME_LPA_EXTENDED	      0x04 /* offsets into log pages */
#define NVME_ONCS_COMPARE	      (1u << 0)
#define NVME_ONCS_WRITE_UNCORRECTABLE (1u << 1)
#define NVME_ONCS_DSM		      (1u << 2)
#define NVME_ONCS_WRITE_ZEROES	      (1u << 3)
#define NVME_ONCS_SAVE		      (1u << 4)
#define NVME_ONCS_RESERVATIONS	      (1u << 5)
#define NVME_ONCS_TIMESTAMP	      (1u << 6)
#define NVME_ONCS_VERIFY	      (1u << 7)
#define NVME_ONCS_COPY		      (1u << 8)
#define NVME_FUSES_COMPARE_WRITE      (1u << 0)
#define NVME_VWC_PRESENT	      0x01
#define NVME_VWC_FLUSH_ALL_NO	      0x04 /* FLUSH with NVME_NSID_ALL fails */
#define NVME_VWC_FLUSH_ALL	      0x06
#define NVME_SGLS_SUPPORTED	      (1u << 0)
#define NVME_SGLS_TRANSPORT	      (1u << 21)
#define NVME_SGLS_OFFSET	      (1u << 20)
#define NVME_OFCS_DISCONNECT	      (1u << 0)
#define NVME_ANACAP_OPTIMIZED	      0x01
#define NVME_ANACAP_NONOPTIMIZED      0x02
#define NVME_ANACAP_INACCESSIBLE      0x04
#define NVME_ANACAP_LOSS	      0x08
#define NVME_ANACAP_CHANGE	      0x10
#define NVME_ANACAP_GRPID_STABLE      0x40
#define NVME_ANACAP_GRPID_SET	      0x80
#define NVME_CAPSULE_UNIT	      16

struct nvme_lba_format {
	le16 metadata_bytes;
	uint8_t data_shift, performance;
};

struct nvme_id_ns {
	le64 nsze, ncap, nuse;
	uint8_t nsfeat, nlbaf, flbas, mc, dpc, dps, nmic, rescap, fpi, dlfeat;
	le16 nawun, nawupf, nacwu, nabsn, nabo, nabspf, noiob;
	uint8_t nvmcap[16];
	le16 npwg, npwa, npdg, npda, nows, mssrl;
	le32 mcl;
	uint8_t msrc, reserved_81[11];
	le32 anagrpid;
	uint8_t reserved_96[3], nsattr;
	le16 nvmsetid, endgid;
	uint8_t nguid[16], eui64[8];
	struct nvme_lba_format lbaf[64];
	uint8_t reserved_384[3712];
};

static_assert(sizeof(struct nvme_id_ns) == NVME_IDENTIFY_BYTES && offsetof(struct nvme_id_ns, nsfeat) == 24 &&
		      offsetof(struct nvme_id_ns, nawun) == 34 && offsetof(struct nvme_id_ns, nvmcap) == 48 &&
		      offsetof(struct nvme_id_ns, npwg) == 64 &&
		      offsetof(struct nvme_id_ns, anagrpid) == 92 &&
		      offsetof(struct nvme_id_ns, nguid) == 104 && offsetof(struct nvme_id_ns, lbaf) == 128,
	      "Identify Namespace");

#define NVME_NSFEAT_THIN	0x01
#define NVME_NSFEAT_OPTPERF	0x10 /* npwg, npwa, npdg, npda and nows mean something */
#define NVME_NMIC_SHARED	0x01
#define NVME_DLFEAT_READ_ZEROES 0x01
#define NVME_DLFEAT_WZ_DEAC	0x08
#define NVME_NSATTR_READ_ONLY	0x01
#define NVME_RESCAP_PERSIST	0x01 /* through power loss */
#define NVME_RESCAP_TYPES	0x7e /* all six */
#define NVME_RESCAP_IGNORE_KEY	0x80 /* as NVMe 1.3 and later define it */

/* One entry of the namespace identification descriptors; the id follows. */
struct nvme_ns_descriptor {
	uint8_t type, length, reserved[2];
};
#define NVME_NIDT_EUI64 1
#define NVME_NIDT_NGUID 2
#define NVME_NIDT_UUID	3
#define NVME_NIDT_CSI	4
static_assert(sizeof(struct nvme_ns_descriptor) == 4, "namespace identification descriptor");

struct nvme_id_ctrl_nvm { /* NVME_CNS_CSI_CONTROLLER; sizes as powers of two of the smallest page, 0: no limit */
	uint8_t vsl, wzsl, wusl, dmrl;
	le32 dmrsl;
	le64 dmsl;
	uint8_t reserved_16[4080];
};

struct nvme_id_ns_nvm { /* NVME_CNS_CSI_NAMESPACE: all zero without protection information */
	le64 lbstm;
	uint8_t pic, reserved_9[3];
	le32 elbaf[64];
	uint8_t reserved_268[3828];
};

struct nvme_id_ns_independent { /* NVME_CNS_INDEPENDENT_NAMESPACE */
	uint8_t nsfeat, nmic, rescap, fpi;
	le32 anagrpid;
	uint8_t nsattr, reserved_9;
	le16 nvmsetid, endgid;
	uint8_t nstat;
	uint8_t reserved_15[4081];
};
#define NVME_NSTAT_READY 0x01

struct nvme_id_list { /* of namespaces or changed namespaces: ascending, zero ends it */
	le32 nsid[1024];
};

struct nvme_ctrl_list {
	le16 count;
	le16 cntlid[2047];
};

static_assert(sizeof(struct nvme_id_ctrl_nvm) == NVME_IDENTIFY_BYTES &&
		      sizeof(struct nvme_id_ns_nvm) == NVME_IDENTIFY_BYTES &&
		      sizeof(struct nvme_id_ns_independent) == NVME_IDENTIFY_BYTES &&
		      sizeof(struct nvme_id_list) == NVME_IDENTIFY_BYTES &&
		      sizeof(struct nvme_ctrl_list) == NVME_IDENTIFY_BYTES,
	      "Identify answers are a page");

/* ---- log pages ------------------------------------------------------------------------------------------------------------ */

enum nvme_log { /* cdw10 bits 7:0; bits 31:16 and cdw11 bits 15:0: dwords - 1; cdw12-13: offset in bytes */
		NVME_LOG_SUPPORTED = 0x00,
		NVME_LOG_ERROR = 0x01,
		NVME_LOG_SMART = 0x02,
		NVME_LOG_FIRMWARE = 0x03,
		NVME_LOG_CHANGED_NAMESPACES = 0x04,
		NVME_LOG_EFFECTS = 0x05,
		NVME_LOG_ANA = 0x0c,
		NVME_LOG_DISCOVERY = 0x70,
		NVME_LOG_RESERVATION = 0x80,
};
#define NVME_LOG_RETAIN	    (1u << 15) /* cdw10: keep the event */
#define NVME_LOG_ANA_GROUPS (1u << 8)  /* cdw10, log specific: groups without their namespaces */

struct nvme_log_error {
	le64 count;
	le16 sqid, cid, status, location;
	le64 lba;
	le32 nsid;
	uint8_t vendor, trtype, reserved_30[2];
	le64 specific;
	le16 transport_specific;
	uint8_t reserved_42[22];
};

struct nvme_log_smart {
	uint8_t critical_warning;
	le16 temperature_kelvin;
	uint8_t spare, spare_threshold, percent_used, group_warning, reserved_7[25];
	uint8_t units_read[16], units_written[16]; /* thousands of 512 bytes */
	uint8_t host_reads[16], host_writes[16], busy_minutes[16], power_cycles[16], power_hours[16];
	uint8_t unsafe_shutdowns[16], media_errors[16], error_entries[16];
	uint8_t reserved_192[320];
};

struct nvme_log_firmware {
	uint8_t active, reserved_1[7];
	char slots[7][8];
	uint8_t reserved_64[448];
};

struct nvme_log_effects {
	le32 admin[256], io[256];
	uint8_t reserved_2048[2048];
};
#define NVME_EFFECT_SUPPORTED	 (1u << 0)
#define NVME_EFFECT_CHANGES_DATA (1u << 1)

struct nvme_log_ana { /* then `groups` of the struct below, each followed by its namespaces */
	le64 change_count;
	le16 groups;
	uint8_t reserved[6];
};

struct nvme_log_ana_group {
	le32 group_id, nsid_count;
	le64 change_count;
	uint8_t state, reserved[15];
};
enum nvme_ana_state {
	NVME_ANA_OPTIMIZED = 1,
	NVME_ANA_NONOPTIMIZED = 2,
	NVME_ANA_INACCESSIBLE = 3,
	NVME_ANA_PERSISTENT_LOSS = 4,
	NVME_ANA_CHANGE = 15,
};

struct nvme_log_discovery { /* then `records` of the struct below */
	le64 generation, records;
	le16 format;
	uint8_t reserved_18[1006];
};

struct nvme_discovery_entry {
	uint8_t trtype, adrfam, subtype, treq;
	le16 portid, cntlid, asqsz, eflags;
	uint8_t reserved_12[20];
	char trsvcid[32]; /* NUL-padded text, as the two below */
	uint8_t reserved_64[192];
	char subnqn[NVME_NQN_FIELD];
	char traddr[256];
	uint8_t tsas[256]; /* TCP: its first byte is the security type */
};
#define NVME_TRTYPE_TCP		      3
#define NVME_ADRFAM_IPV4	      1
#define NVME_ADRFAM_IPV6	      2
#define NVME_SUBTYPE_REFERRAL	      1
#define NVME_SUBTYPE_NVM	      2
#define NVME_SUBTYPE_DISCOVERY	      3
#define NVME_TREQ_NOT_SPECIFIED	      0
#define NVME_TREQ_SECURE_REQUIRED     1
#define NVME_TREQ_SECURE_NOT_REQUIRED 2
#define NVME_TREQ_NO_SQ_FLOW_CONTROL  4
#define NVME_EFLAGS_DUPLICATE	      1
#define NVME_EFLAGS_PERSISTENT	      2
#define NVME_TCP_SECTYPE_NONE	      0
#define NVME_TCP_SECTYPE_TLS	      2

static_assert(sizeof(struct nvme_log_error) == 64 && offsetof(struct nvme_log_error, specific) == 32,
	      "error log");
static_assert(sizeof(struct nvme_log_smart) == 512 && offsetof(struct nvme_log_smart, units_read) == 32 &&
		      offsetof(struct nvme_log_smart, error_entries) == 176,
	      "SMART log");
static_assert(sizeof(struct nvme_log_firmware) == 512 && sizeof(struct nvme_log_effects) == 4096, "logs");
static_assert(sizeof(struct nvme_log_ana) == 16 && sizeof(struct nvme_log_ana_group) == 32, "ANA log");
static_assert(sizeof(struct nvme_log_discovery) == 1024 && sizeof(struct nvme_discovery_entry) == 1024 &&
		      offsetof(struct nvme_discovery_entry, trsvcid) == 32 &&
		      offsetof(struct nvme_discovery_entry, subnqn) == 256 &&
		      offsetof(struct nvme_discovery_entry, traddr) == 512,
	      "discovery log");

/* ---- features and events --------------------------------------------------------------------------------------------------- */

enum nvme_feature { /* cdw10 bits 7:0 */
		    NVME_FEATURE_ARBITRATION = 0x01,
		    NVME_FEATURE_POWER = 0x02,
		    NVME_FEATURE_TEMPERATURE = 0x04,
		    NVME_FEATURE_ERROR_RECOVERY = 0x05,
		    NVME_FEATURE_WRITE_CACHE = 0x06,
		    NVME_FEATURE_QUEUES = 0x07,
		    NVME_FEATURE_WRITE_ATOMICITY = 0x0a,
		    NVME_FEATURE_EVENTS = 0x0b,
		    NVME_FEATURE_KEEP_ALIVE = 0x0f,
		    NVME_FEATURE_HOST_BEHAVIOR = 0x16,
		    NVME_FEATURE_HOST_ID = 0x81,
		    NVME_FEATURE_RESERVATION_MASK = 0x82,
		    NVME_FEATURE_RESERVATION_PERSIST = 0x83,
};
#define NVME_FEATURE_SAVE	   (1u << 31)	      /* cdw10 of Set Features */
#define NVME_FEATURE_SELECT(cdw10) ((cdw10) >> 8 & 7) /* cdw10 of Get Features: */
#define NVME_SELECT_CURRENT	   0
#define NVME_SELECT_DEFAULT	   1
#define NVME_SELECT_SAVED	   2
#define NVME_SELECT_CAPABILITIES   3 /* answered with: 1 saveable, 2 a namespace's own, 4 changeable */

struct nvme_host_behavior {
	uint8_t acre, etdas, lbafee, reserved[509];
};
static_assert(sizeof(struct nvme_host_behavior) == 512, "host behavior support");

/* Dword 0 of an asynchronous event: type, information << 8, the log page that tells more << 16. */
#define NVME_EVENT_ERROR	    0
#define NVME_EVENT_SMART	    1
#define NVME_EVENT_NOTICE	    2
#define NVME_EVENT_COMMAND_SET	    6
#define NVME_NOTICE_NAMESPACE	    0x00
#define NVME_NOTICE_FIRMWARE	    0x01
#define NVME_NOTICE_ANA		    0x03
#define NVME_NOTICE_DISCOVERY	    0xf0
#define NVME_RESERVATION_AVAILABLE  0x00 /* of NVME_EVENT_COMMAND_SET */
#define NVME_EVENT(type, info, log) ((uint32_t)(type) | (uint32_t)(info) << 8 | (uint32_t)(log) << 16)

/* ---- reservations ----------------------------------------------------------------------------------------------------------- */

/* cdw10 of the four commands. */
#define NVME_RESERVATION_ACTION(cdw10)	((cdw10)&7)
#define NVME_RESERVATION_IGNORE_KEY	(1u << 3)
#define NVME_RESERVATION_TYPE(cdw10)	((cdw10) >> 8 & 0xff) /* acquire and release */
#define NVME_RESERVATION_PERSIST(cdw10) ((cdw10) >> 30)	      /* register: enum nvme_reservation_persist */
#define NVME_RESERVATION_EXTENDED	(1u << 0)	      /* cdw11 of report */

enum nvme_reservation_persist {
	NVME_PERSIST_AS_IT_IS,
	NVME_PERSIST_RESERVED,
	NVME_PERSIST_NOT,
	NVME_PERSIST,
};
enum nvme_reservation_notice { /* in the log page */
			       NVME_RESERVATION_NO_NOTICE,
			       NVME_REGISTRATION_PREEMPTED,
			       NVME_RESERVATION_RELEASED,
			       NVME_RESERVATION_PREEMPTED,
};
#define NVME_RESERVATION_MASKED(notice) (1u << (notice)) /* the bit of the feature that masks it */

enum nvme_register_action { NVME_REGISTER, NVME_UNREGISTER, NVME_REPLACE };
enum nvme_acquire_action { NVME_ACQUIRE, NVME_PREEMPT, NVME_PREEMPT_ABORT };
enum nvme_release_action { NVME_RELEASE, NVME_CLEAR };
enum nvme_reservation_type {
	NVME_RESERVATION_NONE,
	NVME_RESERVATION_WRITE_EXCLUSIVE,
	NVME_RESERVATION_EXCLUSIVE_ACCESS,
	NVME_RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS,
	NVME_RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS,
	NVME_RESERVATION_WRITE_EXCLUSIVE_ALL,
	NVME_RESERVATION_EXCLUSIVE_ACCESS_ALL,
};

struct nvme_reservation_keys { /* register and acquire; release has the first only */
	le64 current, other;
};

struct nvme_reservation_report { /* then the struct below, `registrants` times; extended: padded to 64 first */
	le32 generation;
	uint8_t type;
	le16 registrants;
	uint8_t reserved_7[2];
	uint8_t persist;
	uint8_t reserved_10[14];
};

struct nvme_registrant {
	le16 cntlid;
	uint8_t is_holder, reserved_3[5];
	le64 hostid, key;
};

struct nvme_registrant_extended {
	le16 cntlid;
	uint8_t is_holder, reserved_3[5];
	le64 key;
	uint8_t hostid[16];
	uint8_t reserved_32[32];
};

struct nvme_log_reservation {
	le64 count;
	uint8_t type, available, reserved_10[2];
	le32 nsid;
	uint8_t reserved_16[48];
};

static_assert(sizeof(struct nvme_reservation_keys) == 16 && sizeof(struct nvme_reservation_report) == 24 &&
		      sizeof(struct nvme_registrant) == 24 && sizeof(struct nvme_registrant_extended) == 64 &&
		      offsetof(struct nvme_reservation_report, persist) == 9 &&
		      sizeof(struct nvme_log_reservation) == 64,
	      "reservations");

/* ---- Fabrics ---------------------------------------------------------------------------------------------------------------- */

enum nvme_fabrics_type {
	NVME_FABRICS_PROPERTY_SET = 0x00,
	NVME_FABRICS_CONNECT = 0x01,
	NVME_FABRICS_PROPERTY_GET = 0x04,
	NVME_FABRICS_AUTH_SEND = 0x05,
	NVME_FABRICS_AUTH_RECEIVE = 0x06,
	NVME_FABRICS_DISCONNECT = 0x08,
};

/* The commands as they lie over struct nvme_sqe. */
struct nvme_connect {
	uint8_t opcode, flags;
	le16 cid;
	uint8_t fctype, reserved_5[19];
	struct nvme_sgl sgl;
	le16 format, qid, sqsize; /* sqsize: entries - 1 */
	uint8_t cattr, reserved_47;
	le32 kato_ms;
	uint8_t reserved_52[12];
};
#define NVME_CATTR_NO_SQ_FLOW_CONTROL 0x04
#define NVME_CATTR_QUEUE_DELETION     0x08 /* the host may use Disconnect */

struct nvme_connect_data {
	uint8_t hostid[16];
	le16 cntlid;
	uint8_t reserved_18[238];
	char subnqn[NVME_NQN_FIELD], hostnqn[NVME_NQN_FIELD];
	uint8_t reserved_768[256];
};
/* Dword 0 of the answer: the controller's id, and whether authentication has to follow (ATR; with a secure channel: ASCR); or where
 * the invalid parameter is. */
#define NVME_CONNECT_ATR	    (1u << 17)
#define NVME_CONNECT_ASCR	    (1u << 18)
#define NVME_CONNECT_IN_SQE(field)  ((uint32_t)offsetof(struct nvme_connect, field))
#define NVME_CONNECT_IN_DATA(field) ((uint32_t)offsetof(struct nvme_connect_data, field) | 1u << 16)

struct nvme_property {
	uint8_t opcode, flags;
	le16 cid;
	uint8_t fctype, reserved_5[35];
	uint8_t size, reserved_41[3]; /* size: 0 for 4 bytes, 1 for 8 */
	le32 offset;
	le64 value; /* of Set; Get has it as the result */
	uint8_t reserved_56[8];
};

struct nvme_disconnect {
	uint8_t opcode, flags;
	le16 cid;
	uint8_t fctype, reserved_5[35];
	le16 format;
	uint8_t reserved_42[22];
};

static_assert(sizeof(struct nvme_connect) == 64 && offsetof(struct nvme_connect, format) == 40 &&
		      offsetof(struct nvme_connect, kato_ms) == 48 && sizeof(struct nvme_property) == 64 &&
		      offsetof(struct nvme_property, size) == 40 &&
		      offsetof(struct nvme_property, value) == 48 && sizeof(struct nvme_disconnect) == 64 &&
		      offsetof(struct nvme_disconnect, format) == 40,
	      "Fabrics commands");
static_assert(sizeof(struct nvme_connect_data) == 1024 && offsetof(struct nvme_connect_data, subnqn) == 256 &&
		      offsetof(struct nvme_connect_data, hostnqn) == 512,
	      "Connect data");

enum nvme_property_offset {
	NVME_PROPERTY_CAP = 0x00, /* 8 bytes, the others 4 */
	NVME_PROPERTY_VS = 0x08,
	NVME_PROPERTY_CC = 0x14,
	NVME_PROPERTY_CSTS = 0x1c,
	NVME_PROPERTY_NSSR = 0x20,
	NVME_PROPERTY_CRTO = 0x68,
};

#define NVME_VERSION(major, minor, patch)                                                                    \
	((uint32_t)(major) << 16 | (uint32_t)(minor) << 8 | (uint32_t)(patch))

#define NVME_CAP_MQES(entries)	   ((uint64_t)((entries)-1))
#define NVME_CAP_MQES_ENTRIES(cap) ((uint32_t)((cap)&0xffff) + 1)
#define NVME_CAP_CQR		   (1ull << 16)
#define NVME_CAP_TO_500MS(units)   ((uint64_t)(units) << 24)
#define NVME_CAP_TO_UNITS(cap)	   ((uint32_t)((cap) >> 24 & 0xff))
#define NVME_CAP_CSS_NVM	   (1ull << 37)
#define NVME_CAP_CSS_CSI	   (1ull << 43)
#define NVME_CAP_CSS_NONE	   (1ull << 44)
#define NVME_CC_EN		   (1u << 0)
#define NVME_CC_CSS(cc)		   ((cc) >> 4 & 7)
#define NVME_CC_CSS_NVM		   0u
#define NVME_CC_CSS_CSI		   6u
#define NVME_CC_CSS_NONE	   7u
#define NVME_CC_MPS(cc)		   ((cc) >> 7 & 0xf)
#define NVME_CC_AMS(cc)		   ((cc) >> 11 & 7)
#define NVME_CC_SHN(cc)		   ((cc) >> 14 & 3)
#define NVME_CC_SHN_NORMAL	   (1u << 14)
#define NVME_CC_IOSQES(cc)	   ((cc) >> 16 & 0xf)
#define NVME_CC_IOCQES(cc)	   ((cc) >> 20 & 0xf)
#define NVME_CC_ENTRY_SIZES	   (6u << 16 | 4u << 20) /* 64 and 16 bytes */
#define NVME_CSTS_RDY		   (1u << 0)
#define NVME_CSTS_CFS		   (1u << 1)
#define NVME_CSTS_SHST(csts)	   ((csts) >> 2 & 3)
#define NVME_CSTS_SHST_DONE	   (2u << 2)

#endif
