/* list.h: an intrusive, circular, doubly linked list. The list owns nothing; an element is on one list at a time. */
#ifndef OXBOW_BASE_LIST_H
#define OXBOW_BASE_LIST_H

#include "base/base.h"

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(name)                                                                                      \
	{                                                                                                    \
		&(name), &(name)                                                                             \
	}

static inline void list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

/* True if an element that was list_init()ed or list_del()eted is on some list. */
static inline bool list_linked(const struct list *item)
{
	return item->next != item;
}

static inline void list_insert_between(struct list *item, struct list *prev, struct list *next)
{
	item->prev = prev;
	item->next = next;
	prev->next = item;
	next->prev = item;
}

static inline void list_add_tail(struct list *head, struct list *item)
{
	list_insert_between(item, head->prev, head);
}

static inline void list_add_head(struct list *head, struct list *item)
{
	list_insert_between(item, head, head->next);
}

static inline void list_del(struct list *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	list_init(item);
}

/* Move all of `from` to the end of `to`; `from` is empty after. */
static inline void list_splice_tail(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(item, type, member) container_of(item, type, member)
#define list_first(head, type, member) list_entry((head)->next, type, member)
#define list_last(head, type, member)  list_entry((head)->prev, type, member)

/* Remove and return the first element, or NULL. */
#define list_pop(head, type, member)                                                                         \
	({                                                                                                   \
		struct list *popped_ = (head)->next;                                                         \
		if (popped_ != (head))                                                                       \
			list_del(popped_);                                                                   \
		popped_ == (head) ? NULL : list_entry(popped_, type, member);                                \
	})

#define list_for_each(pos, head, member)                                                                     \
	for ((pos) = list_entry((head)->next, __typeof__(*(pos)), member); &(pos)->member != (head);         \
	     (pos) = list_entry((pos)->member.next, __typeof__(*(pos)), member))

/* As list_for_each; the body may remove `pos` (and nothing else). */
#define list_for_each_safe(pos, tmp, head, member)                                                           \
	for ((pos) = list_entry((head)->next, __typeof__(*(pos)), member),                                   \
	    (tmp) = list_entry((pos)->member.next, __typeof__(*(pos)), member);                              \
	     &(pos)->member != (head);                                                                       \
	     (pos) = (tmp), (tmp) = list_entry((tmp)->member.next, __typeof__(*(tmp)), member))

#endif
