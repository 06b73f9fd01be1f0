/* SPDX-License-Identifier: MIT */
/* list.c - unit tests of runtime/list.h */
#include <criterion/criterion.h>

#include "list.h"

struct item {
    struct mag_list link;
    struct mag_fifo_node node;
    int n;
};

#define ITEM(l)  mag_container_of(l, struct item, link)
#define NITEM(f) mag_container_of(f, struct item, node)

static struct mag_list head;
static struct mag_fifo fifo;
static struct item items[4];

static void setup(void)
{
    mag_list_init(&head);
    mag_fifo_init(&fifo);
    for (int i = 0; i < 4; i++) {
        items[i].n = i;
        mag_list_init(&items[i].link);
    }
}

TestSuite(list, .init = setup);

/* The numbers on the list as decimal digits; every link is checked (invariant 1). */
static int digits(void)
{
    int number = 0;

    mag_list_foreach (l, &head) {
        cr_assert(l->next->prev == l && l->prev->next == l);
        number = number * 10 + ITEM(l)->n;
    }
    cr_assert(head.next->prev == &head && head.prev->next == &head);
    return number;
}

static void push(int n)
{
    mag_list_push_back(&head, &items[n].link);
}

Test(list, empty)
{
    cr_assert(mag_list_empty(&head));
    cr_assert_null(mag_list_first(&head));
    cr_assert_null(mag_list_pop_front(&head));
}

Test(list, order_back_and_front)
{
    push(2);
    push(3);
    mag_list_push_front(&head, &items[1].link);
    cr_assert_eq(digits(), 123);
    cr_assert(!mag_list_empty(&head));
    cr_assert_eq(ITEM(mag_list_first(&head))->n, 1);
    cr_assert_eq(ITEM(mag_list_next(&head, &items[1].link))->n, 2);
    cr_assert_null(mag_list_next(&head, &items[3].link));
}

Test(list, remove_anywhere_and_twice)
{
    push(1);
    push(2);
    push(3);
    mag_list_remove(&items[2].link);
    cr_assert_eq(digits(), 13);
    cr_assert(mag_list_empty(&items[2].link));
    mag_list_remove(&items[2].link);
    cr_assert_eq(digits(), 13);
    mag_list_remove(&items[1].link);
    mag_list_remove(&items[3].link);
    cr_assert(mag_list_empty(&head));
}

Test(list, foreach_allows_removal_of_it)
{
    push(1);
    push(2);
    push(3);
    mag_list_foreach (l, &head)
        if (ITEM(l)->n != 2)
            mag_list_remove(l);
    cr_assert_eq(digits(), 2);
}

Test(list, pop_front_empties)
{
    push(1);
    push(2);
    cr_assert_eq(ITEM(mag_list_pop_front(&head))->n, 1);
    cr_assert_eq(ITEM(mag_list_pop_front(&head))->n, 2);
    cr_assert_null(mag_list_pop_front(&head));
    cr_assert(mag_list_empty(&items[1].link));
}

static int take(void)
{
    struct mag_fifo_node *n = mag_fifo_pop_front(&fifo);

    return n ? NITEM(n)->n : -1;
}

Test(list, fifo_order_and_count)
{
    cr_assert(mag_fifo_empty(&fifo));
    mag_fifo_push_back(&fifo, &items[1].node);
    mag_fifo_push_back(&fifo, &items[2].node);
    mag_fifo_push_front(&fifo, &items[0].node);
    cr_assert_eq(fifo.count, 3);
    cr_assert_eq(take(), 0);
    cr_assert_eq(take(), 1);
    cr_assert_eq(take(), 2);
    cr_assert_eq(take(), -1);
    cr_assert(mag_fifo_empty(&fifo) && fifo.tail == NULL && fifo.count == 0);
}

Test(list, fifo_usable_after_it_was_empty)
{
    mag_fifo_push_front(&fifo, &items[0].node);
    mag_fifo_push_back(&fifo, &items[3].node);
    cr_assert_eq(take(), 0);
    cr_assert_eq(take(), 3);
    mag_fifo_push_back(&fifo, &items[1].node);
    mag_fifo_push_back(&fifo, &items[2].node);
    cr_assert_eq(take(), 1);
    cr_assert_eq(take(), 2);
}

Test(list, fifo_splice)
{
    struct mag_fifo other;

    mag_fifo_init(&other);
    mag_fifo_splice(&fifo, &other);
    cr_assert(mag_fifo_empty(&fifo));

    mag_fifo_push_back(&other, &items[0].node);
    mag_fifo_push_back(&other, &items[1].node);
    mag_fifo_splice(&fifo, &other);
    cr_assert(mag_fifo_empty(&other) && other.count == 0 && fifo.count == 2);

    mag_fifo_push_back(&other, &items[2].node);
    mag_fifo_splice(&fifo, &other);
    mag_fifo_push_back(&fifo, &items[3].node);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(take(), i);
}
