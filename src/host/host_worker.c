/* host_worker.c: a few threads for what blocks or computes long. They touch nothing a reactor owns; results go home by note. */
#include "host/host_internal.h"

#include <signal.h>
#include <stdio.h>

struct host_workers {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct host_job *first, **last;
	bool stopping;
	unsigned count;
	pthread_t threads[];
};

/* The oldest job; NULL when the pool stops and none is left. */
static struct host_job *job_next(struct host_workers *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->first && !w->stopping)
		pthread_cond_wait(&w->work, &w->lock);
	struct host_job *job = w->first;
	if (job) {
		w->first = job->next;
		if (!w->first)
			w->last = &w->first;
	}
	pthread_mutex_unlock(&w->lock);
	return job;
}

static void *worker_main(void *arg)
{
	for (struct host_job *job; (job = job_next(arg));) {
		job->work(job);
		host_msg_send(job->home, &job->msg);
	}
	return NULL;
}

/* Signals are for the threads that know them: a worker is born with all of them blocked. */
struct host_workers *host_workers_start(unsigned count)
{
	struct host_workers *w = mem_zalloc(sizeof(*w) + count * sizeof(w->threads[0]));
	sigset_t all, old;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	w->last = &w->first;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (; w->count < count; w->count++) {
		if (pthread_create(&w->threads[w->count], NULL, worker_main, w)) {
			fprintf(stderr, "oxbow: cannot start a worker thread\n");
			abort();
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return w;
}

void host_workers_stop(struct host_workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->count; i++)
		pthread_join(w->threads[i], NULL);
	pthread_cond_destroy(&w->work);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static void job_home(struct host_msg *msg)
{
	struct host_job *job = container_of(msg, struct host_job, msg);
	job->finish(job);
}

void host_job_start(struct host *h, struct host_job *job)
{
	struct host_workers *w = h->workers;
	job->home = h;
	job->msg.run = job_home;
	job->next = NULL;
	pthread_mutex_lock(&w->lock);
	*w->last = job;
	w->last = &job->next;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
}

struct offload {
	struct host_job job;
	void (*fn)(void *arg);
	void *arg;
	struct fiber *fiber;
};

static void offload_work(struct host_job *job)
{
	struct offload *o = container_of(job, struct offload, job);
	o->fn(o->arg);
}

static void offload_finish(struct host_job *job)
{
	fiber_ready(container_of(job, struct offload, job)->fiber);
}

void host_offload(struct rt *rt, void (*fn)(void *arg), void *arg)
{
	struct offload o = {.job = {.work = offload_work, .finish = offload_finish},
			    .fn = fn,
			    .arg = arg,
			    .fiber = fiber_current()};
	host_job_start(host_of(rt), &o.job);
	fiber_park();
}
