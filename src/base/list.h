/*
 * An intrusive list in order of use: newest at the front, evicted from the back.
 */
#ifndef UMO_BASE_LIST_H
#define UMO_BASE_LIST_H

#include <stddef.h>

typedef struct umo_list_link {
    struct umo_list_link *previous;
    struct umo_list_link *next;
} umo_list_link;

/* A ring through its head: head.next is the newest, head.previous the oldest. */
static inline void umo_list_init(umo_list_link *head)
{
    head->previous = head;
    head->next = head;
}

static inline void umo_list_remove(umo_list_link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
}

static inline void umo_list_push(umo_list_link *head, umo_list_link *link)
{
    link->next = head->next;
    link->previous = head;
    head->next->previous = link;
    head->next = link;
}

#define UMO_LIST_ENTRY(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

#endif
