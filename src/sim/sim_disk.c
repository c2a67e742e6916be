/*
 * sim_disk.c: requests to a simulated disk: what each does, how long it takes, and what goes wrong with it.
 *
 * A request takes effect at one moment, when it is done; a read may instead have looked at the moment it was submitted, and
 * sees any mix, sector by sector, of writes in flight over the same place. What goes wrong is drawn at submission.
 * A buffer that changes while it is being written is a bug of the code under test, and found by its CRC.
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "sim/sim_medium.h"
#include "sim/sim_private.h"

#include <stdio.h>

struct sim_disk {
	struct list link;
	struct sim_node *node;
	char path[256];
	uint32_t lba_bytes;
	struct sim_medium medium;
	struct sim_disk_faults faults;
	struct sim_disk_counts counts;
	struct disk_handle *handle; /* NULL: not open */
	struct list requests;
	struct list untold; /* done, and their process was paused */
	const char *probe_text;
	void (*watch)(void *ctx, struct sim_disk *disk);
	void *watch_ctx;
};

struct disk_handle {
	struct rt_disk base;
	struct sim_disk *disk;
};

/* A request under way. `io` is NULL when its process is gone; the event that would have completed it frees it. */
struct request {
	struct list link;
	struct sim_disk *disk;
	struct rt_io *io;
	enum rt_io_op op;
	int result;
	bool firm, read_early;
	struct sim_write *write;
	uint64_t flush_order;
	uint32_t crc;
};

const struct sim_fault_text sim_fault_texts[] = {
	{"torn-writes", "at a power cut an unflushed write is there in part, in units of 512 B or 4 KiB"},
	{"lost-writes", "a power cut takes any subset of the unflushed writes, in any order"},
	{"killed-writes", "a kill leaves any subset of the 4 KiB pieces of what was in flight"},
	{"io-errors", "a read, write or flush fails; a failed write may be there in part"},
	{"nth-io-error", "the nth read, write or flush fails, once"},
	{"bit-rot", "a bit flips somewhere on the medium"},
	{"misdirected-writes", "a write lands somewhere else and reports success"},
	{"stale-pages", "a write was lost: a page holds an older state of itself"},
	{"false-headers",
	 "a page is whole and in its place, and one field of its header is not its parent's"},
	{"latent-errors", "a page cannot be read until it is written again"},
	{"lying-discard", "a discard leaves the old data, zeroes, garbage or a mix"},
	{"slow-io", "latencies vary and a request may stall"},
	{"full-underneath", "the file system under a pool file is full"},
	{"used-disk", "unwritten space holds garbage"},
	{"shuffled-fibers", "ready fibers run in any order"},
	{"net-splits", "a receive returns less than has arrived"},
	{"net-resets", "a connection breaks for both ends"},
	{"net-partitions", "nothing passes from one machine to another, one way or both"},
	{"half-open", "a machine without power leaves its peers waiting"},
	{NULL, NULL},
};

/* ---- making disks --------------------------------------------------------------------------------------------------- */

static struct sim_disk *disk_add(struct sim_node *node, const char *path, uint32_t lba_bytes)
{
	struct sim_disk *disk = mem_zalloc(sizeof(*disk));
	assert(!sim_disk_find(node, path) && strlen(path) < sizeof(disk->path));
	assert(lba_bytes == 512 || lba_bytes == 4096);
	disk->node = node;
	disk->lba_bytes = lba_bytes;
	snprintf(disk->path, sizeof(disk->path), "%s", path);
	disk->faults = (struct sim_disk_faults){
		.latency_min_ns = 20 * NS_PER_US,
		.latency_max_ns = 120 * NS_PER_US,
		.flush_ns = 300 * NS_PER_US,
		.stall_ns = 50 * NS_PER_MS,
		.torn_bytes = lba_bytes,
	};
	list_init(&disk->requests);
	list_init(&disk->untold);
	list_add_tail(&node->disks, &disk->link);
	return disk;
}

struct sim_disk *sim_disk_new(struct sim_node *node, const char *path, uint64_t size_bytes,
			      uint32_t lba_bytes)
{
	struct sim_disk *disk = disk_add(node, path, lba_bytes);
	assert(u64_is_aligned(size_bytes, SIM_PAGE_BYTES));
	medium_init(&disk->medium, size_bytes, 0);
	return disk;
}

struct sim_disk *sim_disk_find(struct sim_node *node, const char *path)
{
	struct sim_disk *disk;
	list_for_each (disk, &node->disks, link) {
		if (strcmp(disk->path, path) == 0)
			return disk;
	}
	return NULL;
}

void sim_disk_fill(struct sim_disk *disk, uint64_t fill_seed)
{
	assert(disk->medium.current.page_count == 0);
	disk->medium.durable.fill_seed = disk->medium.current.fill_seed = fill_seed;
}

void sim_disk_enlarge(struct sim_disk *disk, uint64_t size_bytes)
{
	assert(u64_is_aligned(size_bytes, SIM_PAGE_BYTES));
	image_grow(&disk->medium.current, size_bytes);
	image_grow(&disk->medium.durable, size_bytes);
}

struct sim_disk_faults *sim_disk_faults(struct sim_disk *disk)
{
	return &disk->faults;
}

const struct sim_disk_counts *sim_disk_counts(const struct sim_disk *disk)
{
	return &disk->counts;
}

void sim_disk_set_probe(struct sim_disk *disk, const char *what)
{
	disk->probe_text = what;
}

void sim_disk_peek(const struct sim_disk *disk, void *data, uint64_t len_bytes, uint64_t offset_bytes)
{
	image_read(&disk->medium.current, data, len_bytes, offset_bytes);
}

/* As a write that is durable at once: so it comes after everything in the cache, and no crash undoes it. */
void sim_disk_poke(struct sim_disk *disk, const void *data, uint64_t len_bytes, uint64_t offset_bytes)
{
	uint64_t start = u64_align_down(offset_bytes, SIM_SECTOR_BYTES);
	uint64_t end = u64_align_up(offset_bytes + len_bytes, SIM_SECTOR_BYTES);
	uint8_t *sectors = mem_alloc(end - start);
	sim_disk_peek(disk, sectors, end - start, start);
	memcpy(sectors + (offset_bytes - start), data, len_bytes);
	struct sim_write *w = write_new(sectors, NULL, start, end - start);
	medium_fly(&disk->medium, w);
	medium_land(&disk->medium, w, true);
	write_unref(w);
	free(sectors);
}

void sim_disk_flip_bit(struct sim_disk *disk, uint64_t offset_bytes, unsigned bit)
{
	uint8_t byte;
	sim_disk_peek(disk, &byte, 1, offset_bytes);
	byte = (uint8_t)(byte ^ (1u << (bit & 7)));
	sim_disk_poke(disk, &byte, 1, offset_bytes);
}

void sim_disk_make_unreadable(struct sim_disk *disk, uint64_t offset_bytes, uint64_t len_bytes)
{
	medium_set_unreadable(&disk->medium, offset_bytes, len_bytes);
}

void sim_disk_watch(struct sim_disk *disk, void (*fn)(void *ctx, struct sim_disk *disk), void *ctx)
{
	disk->watch = fn;
	disk->watch_ctx = ctx;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------ */

static void disk_info_set(struct disk_handle *handle)
{
	struct sim_disk *disk = handle->disk;
	handle->base.info = (struct rt_disk_info){
		.size_bytes = disk->medium.current.size_bytes,
		.lba_bytes = disk->lba_bytes,
		.is_block_device = strncmp(disk->path, "/dev/", 5) == 0,
		.is_memory = strncmp(disk->path, "mem:", 4) == 0,
	};
	snprintf(handle->base.info.path, sizeof(handle->base.info.path), "%s", disk->path);
}

/* "mem:SIZE:NAME": made by its first opener, never slow and never wrong. */
static struct sim_disk *disk_of_memory(struct sim_node *node, const char *path)
{
	uint64_t size_bytes = strtoull(path + 4, NULL, 10);
	if (size_bytes == 0 || !u64_is_aligned(size_bytes, SIM_PAGE_BYTES))
		return NULL;
	struct sim_disk *disk = sim_disk_new(node, path, size_bytes, 512);
	disk->faults = (struct sim_disk_faults){.write_through = true};
	return disk;
}

static int disk_find_or_make(struct sim_node *node, const char *path, unsigned flags, uint64_t size_bytes,
			     struct sim_disk **out)
{
	*out = sim_disk_find(node, path);
	if (*out)
		return flags & RT_DISK_CREATE ? OXE_EXISTS : 0;
	if (strncmp(path, "mem:", 4) == 0)
		*out = disk_of_memory(node, path);
	else if (flags & RT_DISK_CREATE)
		*out = sim_disk_new(node, path, u64_align_down(size_bytes, SIM_PAGE_BYTES), 512);
	return *out ? 0 : OXE_NOENT;
}

int disk_op_open(struct rt *rt, const char *path, unsigned flags, uint64_t size_bytes, struct rt_disk **out)
{
	struct sim_disk *disk;
	fiber_sleep(100 * NS_PER_US);
	int err = disk_find_or_make(node_of(rt), path, flags, size_bytes, &disk);
	if (err)
		return err;
	if (disk->handle)
		return OXE_BUSY;
	disk->handle = mem_zalloc(sizeof(*disk->handle));
	disk->handle->base.rt = rt;
	disk->handle->disk = disk;
	disk_info_set(disk->handle);
	sim_trace(node_of(rt)->sim, "disk.open", node_of(rt)->index, disk->medium.current.size_bytes, flags);
	*out = &disk->handle->base;
	return 0;
}

static struct sim_disk *disk_of(struct rt_disk *base)
{
	return container_of(base, struct disk_handle, base)->disk;
}

void disk_op_close(struct rt_disk *base)
{
	struct sim_disk *disk = disk_of(base);
	assert(list_empty(&disk->requests) && list_empty(&disk->untold));
	sim_trace(disk->node->sim, "disk.close", disk->node->index, 0, 0);
	disk->handle = NULL;
	free(container_of(base, struct disk_handle, base));
}

int disk_op_grow(struct rt_disk *base, uint64_t size_bytes)
{
	struct sim_disk *disk = disk_of(base);
	fiber_sleep(100 * NS_PER_US);
	if (size_bytes > disk->medium.current.size_bytes && !base->info.is_block_device)
		sim_disk_enlarge(disk, size_bytes);
	base->info.size_bytes = disk->medium.current.size_bytes;
	return base->info.size_bytes < size_bytes ? OXE_RANGE : 0;
}

static bool image_is_zero(const struct sim_image *image, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint8_t page[SIM_PAGE_BYTES];
	for (uint64_t at = offset_bytes; at < offset_bytes + len_bytes; at += SIM_PAGE_BYTES) {
		image_read(image, page, SIM_PAGE_BYTES, at);
		if (!bytes_are_zero(page, SIM_PAGE_BYTES))
			return false;
	}
	return true;
}

int disk_op_probe(struct rt *rt, const char *path, char *what, size_t what_size_bytes)
{
	struct sim_disk *disk = sim_disk_find(node_of(rt), path);
	fiber_sleep(100 * NS_PER_US);
	if (!disk)
		return OXE_NOENT;
	const struct sim_image *image = &disk->medium.current;
	uint64_t end_bytes = u64_min(MiB, image->size_bytes);
	const char *text = disk->probe_text;
	if (!text && image_is_zero(image, 0, end_bytes) &&
	    image_is_zero(image, image->size_bytes - end_bytes, end_bytes))
		text = "";
	snprintf(what, what_size_bytes, "%s", text ? text : "unknown data");
	return 0;
}

/* ---- what goes wrong -------------------------------------------------------------------------------------------------------- */

static bool nth_is_due(uint64_t *nth)
{
	return *nth && --*nth == 0;
}

/* `kind_nth` may be NULL. Both counters see every request. */
static bool request_fails(struct sim_disk *disk, uint64_t *kind_nth, uint32_t one_in)
{
	bool due = kind_nth && nth_is_due(kind_nth);
	due |= nth_is_due(&disk->faults.fail_nth);
	return due || sim_chance(disk->node->sim, one_in);
}

/* Keep a part of a write that fails. */
static void write_cripple(struct sim *sim, struct sim_write *w)
{
	for (size_t i = 0; i < w->piece_count; i++)
		w->pieces[i].sectors &= (uint8_t)(prng_one_in(&sim->rng, 2) ? 0xff : prng_u64(&sim->rng));
}

/* Is there room under the file for the pages this write touches first? */
static bool file_has_room(struct sim_disk *disk, const struct sim_write *w)
{
	const struct sim_image *image = &disk->medium.current;
	uint64_t fresh = 0;
	if (!disk->faults.space_bytes)
		return true;
	for (size_t i = 0; i < w->piece_count; i++)
		fresh += image_has_page(image, w->first_page + i) ? 0 : 1;
	return fresh == 0 || (image->page_count + fresh) * SIM_PAGE_BYTES <= disk->faults.space_bytes;
}

static uint64_t random_page_offset(struct sim_disk *disk)
{
	uint64_t pages = disk->medium.current.size_bytes / SIM_PAGE_BYTES;
	return prng_below(&disk->node->sim->rng, pages) * SIM_PAGE_BYTES;
}

static void write_damage(struct sim_disk *disk)
{
	struct sim *sim = disk->node->sim;
	if (sim_chance(sim, disk->faults.rot_one_in)) {
		uint64_t at = random_page_offset(disk) + prng_below(&sim->rng, SIM_PAGE_BYTES);
		sim_trace(sim, "disk.rot", at, 0, 0);
		sim_disk_flip_bit(disk, at, (unsigned)prng_below(&sim->rng, 8));
	}
	if (sim_chance(sim, disk->faults.latent_one_in)) {
		uint64_t at = random_page_offset(disk);
		sim_trace(sim, "disk.latent", at, 0, 0);
		sim_disk_make_unreadable(disk, at, SIM_PAGE_BYTES);
	}
}

/* The same payload at another place. */
static struct sim_write *write_misdirect(struct sim_disk *disk, struct sim_write *w, const struct rt_io *io)
{
	uint64_t at = random_page_offset(disk);
	if (at + io->len_bytes > disk->medium.current.size_bytes)
		return w;
	sim_trace(disk->node->sim, "disk.misdirect", io->offset_bytes, at, io->len_bytes);
	write_unref(w);
	return write_new(io->data, NULL, at, io->len_bytes);
}

static uint64_t request_delay_ns(struct sim_disk *disk, enum rt_io_op op)
{
	const struct sim_disk_faults *f = &disk->faults;
	struct sim *sim = disk->node->sim;
	if (sim_chance(sim, f->stall_one_in))
		return f->stall_ns;
	uint64_t ns = sim_between(sim, f->latency_min_ns, f->latency_max_ns);
	return op == RT_IO_FLUSH ? ns + f->flush_ns : ns;
}

/* ---- submission ---------------------------------------------------------------------------------------------------------------- */

static void prepare_write(struct sim_disk *disk, struct request *r)
{
	struct sim_disk_faults *f = &disk->faults;
	struct sim *sim = disk->node->sim;
	const struct rt_io *io = r->io;
	r->crc = crc32c(0, io->data, io->len_bytes);
	r->write = write_new(io->data, NULL, io->offset_bytes, io->len_bytes);
	r->firm = (io->flags & RT_IO_FUA) || f->write_through;
	if (!file_has_room(disk, r->write))
		r->result = OXE_NOSPC;
	else if (request_fails(disk, &f->fail_write_nth, f->write_error_one_in))
		r->result = OXE_IO;
	else if (sim_chance(sim, f->misdirect_one_in))
		r->write = write_misdirect(disk, r->write, io);
	if (r->result == OXE_IO)
		write_cripple(sim, r->write);
	if (r->result == OXE_NOSPC) {
		write_unref(r->write);
		r->write = NULL;
	} else {
		medium_fly(&disk->medium, r->write);
	}
	disk->counts.writes++;
	disk->counts.written_bytes += io->len_bytes;
}

static void prepare_discard(struct sim_disk *disk, struct request *r)
{
	enum sim_discard kind = disk->faults.discard;
	struct sim *sim = disk->node->sim;
	disk->counts.discards++;
	r->io->disk->info.refuses_discards = kind == SIM_DISCARD_REFUSED;
	if (kind == SIM_DISCARD_KEEPS || kind == SIM_DISCARD_REFUSED || r->io->len_bytes == 0)
		return;
	struct sim_page *page = sim_page_new();
	memset(page->data, 0, SIM_PAGE_BYTES);
	if (kind == SIM_DISCARD_GARBAGE || (kind == SIM_DISCARD_MIXED && prng_one_in(&sim->rng, 2)))
		prng_fill(&sim->rng, page->data, SIM_PAGE_BYTES);
	r->write = write_new(NULL, page, r->io->offset_bytes, r->io->len_bytes);
	for (size_t i = 0; kind == SIM_DISCARD_MIXED && i < r->write->piece_count; i++)
		r->write->pieces[i].sectors &= (uint8_t)prng_u64(&sim->rng);
	medium_fly(&disk->medium, r->write);
}

static void prepare_read(struct sim_disk *disk, struct request *r)
{
	struct sim_disk_faults *f = &disk->faults;
	const struct rt_io *io = r->io;
	disk->counts.reads++;
	disk->counts.read_bytes += io->len_bytes;
	if (request_fails(disk, &f->fail_read_nth, f->read_error_one_in))
		r->result = OXE_IO;
	r->read_early = prng_one_in(&disk->node->sim->rng, 4);
	if (r->read_early)
		image_read(&disk->medium.current, io->data, io->len_bytes, io->offset_bytes);
}

static void prepare_flush(struct sim_disk *disk, struct request *r)
{
	disk->counts.flushes++;
	r->flush_order = disk->medium.last_order;
	if (request_fails(disk, NULL, disk->faults.flush_error_one_in))
		r->result = OXE_IO;
}

static void (*const prepares[])(struct sim_disk *disk, struct request *r) = {
	[RT_IO_READ] = prepare_read,
	[RT_IO_WRITE] = prepare_write,
	[RT_IO_FLUSH] = prepare_flush,
	[RT_IO_DISCARD] = prepare_discard,
};
static const char *const submit_names[] = {"read", "write", "flush", "discard"};
static const char *const done_names[] = {"read.done", "write.done", "flush.done", "discard.done"};

static void request_check(const struct sim_disk *disk, const struct rt_io *io)
{
	bool moves_data = io->op == RT_IO_READ || io->op == RT_IO_WRITE;
	assert(io->op != RT_IO_FLUSH || io->len_bytes == 0);
	assert(!moves_data || (io->len_bytes > 0 && (uintptr_t)io->data % RT_MEMORY_ALIGN == 0));
	assert(io->offset_bytes % disk->lba_bytes == 0 && io->len_bytes % disk->lba_bytes == 0);
	assert(io->offset_bytes <= disk->medium.current.size_bytes);
	assert(io->len_bytes <= disk->medium.current.size_bytes - io->offset_bytes);
}

static void request_done(void *arg);

void disk_op_submit(struct rt_io *io)
{
	struct sim_disk *disk = disk_of(io->disk);
	struct request *r = mem_zalloc(sizeof(*r));
	request_check(disk, io);
	*r = (struct request){.disk = disk, .io = io, .op = io->op};
	disk->medium.torn_bytes = disk->faults.torn_bytes;
	prepares[io->op](disk, r);
	sim_trace(disk->node->sim, submit_names[io->op], io->offset_bytes,
		  io->len_bytes | ((uint64_t)io->flags << 56), r->crc);
	list_add_tail(&disk->requests, &r->link);
	sim_after(disk->node->sim, request_delay_ns(disk, io->op), request_done, r);
}

/* ---- completion ---------------------------------------------------------------------------------------------------------------- */

/* Let through, sector by sector, some of what is being written to the place a read looks at. */
static void read_mix_piece(struct sim *sim, const struct sim_write *w, size_t i, const struct rt_io *io)
{
	for (unsigned s = 0; s < SIM_PAGE_SECTORS; s++) {
		uint64_t at = (w->first_page + i) * SIM_PAGE_BYTES + s * SIM_SECTOR_BYTES;
		bool wanted = at >= io->offset_bytes && at < io->offset_bytes + io->len_bytes;
		if (wanted && (w->pieces[i].sectors & (1u << s)) && prng_one_in(&sim->rng, 2))
			memcpy((uint8_t *)io->data + (at - io->offset_bytes),
			       w->pieces[i].page->data + s * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
	}
}

static void read_mix(struct sim_disk *disk, const struct rt_io *io)
{
	for (size_t k = 0; k < disk->medium.flying.count; k++) {
		const struct sim_write *w = disk->medium.flying.items[k];
		if (w->offset_bytes >= io->offset_bytes + io->len_bytes ||
		    io->offset_bytes >= w->offset_bytes + w->len_bytes)
			continue;
		for (size_t i = 0; i < w->piece_count; i++)
			read_mix_piece(disk->node->sim, w, i, io);
	}
}

static void complete_read(struct sim_disk *disk, struct request *r)
{
	struct rt_io *io = r->io;
	if (!medium_is_readable(&disk->medium, io->offset_bytes, io->len_bytes))
		r->result = OXE_IO;
	if (!r->read_early)
		image_read(&disk->medium.current, io->data, io->len_bytes, io->offset_bytes);
	read_mix(disk, io);
	if (r->result) /* what a failed read leaves in the buffer is anything */
		memset(io->data, 0xee, io->len_bytes / 2);
	r->crc = crc32c(0, io->data, io->len_bytes);
}

static void complete_write(struct sim_disk *disk, struct request *r)
{
	const struct rt_io *io = r->io;
	if (io->op == RT_IO_WRITE && crc32c(0, io->data, io->len_bytes) != r->crc) {
		fprintf(stderr, "sim: the buffer of a write to %llu + %llu changed while it was in flight\n",
			(unsigned long long)io->offset_bytes, (unsigned long long)io->len_bytes);
		abort();
	}
	if (!r->write)
		return;
	medium_land(&disk->medium, r->write, r->firm && r->result == 0);
	write_damage(disk);
}

static void complete_flush(struct sim_disk *disk, struct request *r)
{
	if (r->result == 0)
		medium_flush(&disk->medium, r->flush_order);
}

static void request_free(struct request *r)
{
	write_unref(r->write);
	free(r);
}

static void request_tell(struct request *r)
{
	struct sim_disk *disk = r->disk;
	struct rt_io *io = r->io;
	io->result = r->result;
	request_free(r);
	node_enter(disk->node);
	io->done(io);
	node_leave();
}

static void request_done(void *arg)
{
	struct request *r = arg;
	struct sim_disk *disk = r->disk;
	struct rt_io *io = r->io;
	if (!io) {
		request_free(r);
		return;
	}
	if (disk->watch && r->op != RT_IO_READ)
		disk->watch(disk->watch_ctx, disk);
	list_del(&r->link);
	if (r->op == RT_IO_READ)
		complete_read(disk, r);
	else if (r->op == RT_IO_FLUSH)
		complete_flush(disk, r);
	else
		complete_write(disk, r);
	disk->counts.errors += r->result == OXE_IO;
	disk->counts.refusals += r->result == OXE_NOSPC;
	sim_trace(disk->node->sim, done_names[r->op], io->offset_bytes, (uint64_t)(int64_t)r->result, r->crc);
	if (disk->node->paused)
		list_add_tail(&disk->untold, &r->link);
	else
		request_tell(r);
}

void node_disks_tell(struct sim_node *node)
{
	struct sim_disk *disk;
	struct request *r;
	list_for_each (disk, &node->disks, link)
		while ((r = list_pop(&disk->untold, struct request, link)) != NULL)
			request_tell(r);
}

/* ---- crashes -------------------------------------------------------------------------------------------------------------------- */

static void disk_crash(struct sim_disk *disk, bool power_cut)
{
	struct prng *rng = &disk->node->sim->rng;
	struct request *r;
	while ((r = list_pop(&disk->requests, struct request, link)) != NULL)
		r->io = NULL;
	while ((r = list_pop(&disk->untold, struct request, link)) != NULL)
		request_free(r);
	free(disk->handle);
	disk->handle = NULL;
	disk->medium.torn_bytes = disk->faults.torn_bytes;
	if (power_cut)
		medium_power_cut(&disk->medium, NULL, rng);
	else
		medium_kill(&disk->medium, rng);
}

void node_disks_crash(struct sim_node *node, bool power_cut)
{
	struct sim_disk *disk;
	list_for_each (disk, &node->disks, link)
		disk_crash(disk, power_cut);
}

void node_disks_free(struct sim_node *node)
{
	struct sim_disk *disk;
	while ((disk = list_pop(&node->disks, struct sim_disk, link)) != NULL) {
		medium_fini(&disk->medium);
		free(disk->handle);
		free(disk);
	}
}

/* ---- crash states ----------------------------------------------------------------------------------------------------------------- */

struct sim_frozen {
	struct sim_medium medium;
	uint32_t lba_bytes;
	struct sim_disk_faults faults;
};

struct sim_frozen *sim_disk_freeze(const struct sim_disk *disk)
{
	struct sim_frozen *frozen = mem_zalloc(sizeof(*frozen));
	medium_copy(&frozen->medium, &disk->medium);
	frozen->lba_bytes = disk->lba_bytes;
	frozen->faults = disk->faults;
	return frozen;
}

void sim_frozen_free(struct sim_frozen *frozen)
{
	medium_fini(&frozen->medium);
	free(frozen);
}

size_t sim_frozen_unflushed(const struct sim_frozen *frozen)
{
	return medium_unflushed(&frozen->medium);
}

size_t sim_frozen_in_flight(const struct sim_frozen *frozen)
{
	return frozen->medium.flying.count;
}

void sim_frozen_write(const struct sim_frozen *frozen, size_t index, uint64_t *offset_bytes,
		      uint64_t *len_bytes)
{
	const struct sim_write *w = medium_unflushed_at(&frozen->medium, index);
	*offset_bytes = w->offset_bytes;
	*len_bytes = w->len_bytes;
}

static struct sim_disk *disk_fork(struct sim_node *node, const char *path, const struct sim_frozen *frozen)
{
	struct sim_disk *disk = disk_add(node, path, frozen->lba_bytes);
	medium_copy(&disk->medium, &frozen->medium);
	disk->faults = frozen->faults;
	return disk;
}

struct sim_disk *sim_disk_fork_power_cut(struct sim_node *node, const char *path,
					 const struct sim_frozen *frozen, const uint8_t *fates)
{
	struct sim_disk *disk = disk_fork(node, path, frozen);
	medium_power_cut(&disk->medium, fates, &node->sim->rng);
	return disk;
}

struct sim_disk *sim_disk_fork_kill(struct sim_node *node, const char *path, const struct sim_frozen *frozen)
{
	struct sim_disk *disk = disk_fork(node, path, frozen);
	medium_kill(&disk->medium, &node->sim->rng);
	return disk;
}
