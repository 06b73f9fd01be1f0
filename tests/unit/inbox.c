/* SPDX-License-Identifier: MIT */
/*
 * inbox.c - the inbox keeps order, loses nothing, and says who must wake
 */
#include "inbox.h"

#include <criterion/criterion.h>

struct item {
    struct mag_inbox_node node;
    int value;
};

static int value_of(struct mag_inbox_node *n)
{
    return mag_container_of(n, struct item, node)->value;
}

TestSuite(inbox);

Test(inbox, starts_empty)
{
    struct mag_inbox q;
    mag_inbox_init(&q);
    cr_assert(mag_inbox_empty(&q));
    cr_assert(mag_inbox_empty_seq(&q));
    cr_assert_null(mag_inbox_take(&q));
}

Test(inbox, takes_all_in_order)
{
    enum { N = 1000 };
    static struct item items[N];
    struct mag_inbox q;
    mag_inbox_init(&q);
    for (int i = 0; i < N; i++) {
        items[i].value = i;
        mag_inbox_push(&q, &items[i].node);
    }
    cr_assert_not(mag_inbox_empty(&q));

    int expected = 0;
    for (struct mag_inbox_node *n = mag_inbox_take(&q); n; n = n->next)
        cr_assert_eq(value_of(n), expected++);
    cr_assert_eq(expected, N);
    cr_assert(mag_inbox_empty_seq(&q));
}

Test(inbox, only_the_first_push_must_wake)
{
    struct item a, b, c;
    struct mag_inbox q;
    mag_inbox_init(&q);
    cr_assert(mag_inbox_push(&q, &a.node));
    cr_assert_not(mag_inbox_push(&q, &b.node));
    cr_assert_not(mag_inbox_push(&q, &c.node));
    mag_inbox_take(&q);
    cr_assert(mag_inbox_push(&q, &b.node));
}

Test(inbox, node_can_be_pushed_again_once_taken)
{
    struct item a = {.value = 7};
    struct mag_inbox q;
    mag_inbox_init(&q);
    for (int i = 0; i < 3; i++) {
        cr_assert(mag_inbox_push(&q, &a.node));
        struct mag_inbox_node *n = mag_inbox_take(&q);
        cr_assert_eq(n, &a.node);
        cr_assert_null(n->next);
    }
}
