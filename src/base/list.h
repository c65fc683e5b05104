// Intrusive doubly linked lists. A head and a free-standing node both point at themselves.
#pragma once
#include "base/common.h"

struct list { struct list *prev, *next; };

static inline void list_init(struct list *l) { l->prev = l->next = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_insert_before(struct list *at, struct list *n) {
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}
static inline void list_push_back(struct list *head, struct list *n) { list_insert_before(head, n); }
static inline void list_push_front(struct list *head, struct list *n) { list_insert_before(head->next, n); }
static inline void list_remove(struct list *n) { // safe on a node that is in no list but initialised
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
static inline struct list *list_pop_front(struct list *head) { // NULL when empty
    if (list_empty(head)) return NULL;
    struct list *n = head->next;
    list_remove(n);
    return n;
}
#define LIST_FOR(head, n) for (struct list *n = (head)->next; n != (head); n = n->next)
#define LIST_FOR_SAFE(head, n) \
    for (struct list *n = (head)->next, *n##_next = n->next; n != (head); n = n##_next, n##_next = n->next)
#define LIST_ENTRY(n, type, member) CONTAINER_OF(n, type, member)
