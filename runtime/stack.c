/* SPDX-License-Identifier: MIT */
/*
 * stack.c - guarded stacks for fibers: slabs, guards, reuse, measuring
 *
 * A slab reserves address space without memory (MAP_NORESERVE); a slot is carved from it
 * when it is first handed out, and only then guarded.  MADV_GUARD_INSTALL marks the page
 * table and leaves the mapping whole, so there is no limit but memory; mprotect splits
 * the mapping in two and ends at vm.max_map_count, 32,754 stacks.
 *
 *              get                    put                    trim
 *   FRESH ------------> USED <---------------------> WARM ---------> (TRIM) -----> COLD
 *     (uncarved)          ^          get, LIFO                                      |
 *                         +--------------------------- get -------------------------+
 *
 * Pages are given back in bulk: when more than trim_at stacks are warm, all but the most
 * recently used are sorted into runs of neighbours, and each run of at least RUN_MIN
 * costs one madvise.  Slots in shorter runs stay warm, and trim_at rises by a quarter of
 * them, so that a fragmented slab is not searched again and again.  The marks of
 * MADV_GUARD_INSTALL survive MADV_DONTNEED (madvise(2)), as does PROT_NONE.
 *
 * Invariants: (1) a stack is put back once, by MAG_CHECK; (2) a slot is in exactly one of
 * USED, warm list, cold list, or the trimmer's list; (3) only the newest slab of a class
 * has uncarved slots; (4) slabs live until fini.
 *
 * Who may call: any thread.  A class's lock is never held across a system call or an
 * allocation; the registry's only for a list insertion or removal, so the fault handler,
 * which takes it, gives up after SPINS_MAX instead of waiting for ever.
 *
 * Rejected: guards of whole batches by process_madvise (0.1 us of the 3 us
 * that a first use costs, for one more kernel interface); one mmap per stack (2.6 us, and
 * the limit); one madvise per stack at put (1.5 us); free links inside the stacks (they
 * would touch pages that were given back); MADV_FREE (RSS does not fall).
 *
 * Sources: prototypes.md C; madvise(2); mm/madvise.c of Linux 6.13.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stack.h"

#include "check.h"
#include "mem.h"
#include "sys.h"

#include <errno.h>
#include <sys/mman.h>

#if MAG_ASAN
#include <sanitizer/asan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(lo, hi)        0
#define VALGRIND_STACK_DEREGISTER(id)          (void)(id)
#define VALGRIND_MAKE_MEM_UNDEFINED(lo, bytes) (void)(lo)
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

enum {
    LOG2_MIN = 14, /* MAG_STACK_BYTES_MIN */
    /* Four pages cost the same call as one, and a frame must be larger to jump over. */
    GUARD_BYTES = 16 * 1024,
    COLOURS = 8,
    COLOUR_BYTES = 128, /* two lines: the prefetcher fetches pairs */
    /* Slabs start small and double, for processes whose address space is limited. */
    SLOTS_FIRST = 64,
    SLOTS_MAX = 4096,
    SLOTS_MIN = 4,
    SLAB_BYTES = 256 * 1024 * 1024,
    RUN_MIN = 4,
    /* Two mappings each, of 65,530 by default; the program needs some too. */
    MPROTECTS_MAX = 16 * 1024,
    SPINS_MAX = 1000 * 1000,
    MINCORE_PAGES = 64,
};

MAG_STATIC_ASSERT(MAG_STACK_BYTES_MIN == 1 << LOG2_MIN);
MAG_STATIC_ASSERT(MAG_STACK_BYTES_MAX == 1 << (LOG2_MIN + MAG_STACK_CLASSES - 1));

enum slot_state { FRESH, USED, WARM, TRIM, COLD };
enum slot_guard { GUARD_NONE, GUARD_MADVISE, GUARD_MPROTECT };

struct mag_stack_slot {
    struct mag_stack_slot *next; /* [lock] warm, cold or the trimmer's list */
    uint32_t index;              /* [const] in its slab */
    mag_atomic(uint8_t) state;   /* [lock writes, trimmer and fault handler read] */
    uint8_t guard;               /* [whoever took the slot] enum slot_guard */
};

struct mag_stack_slab {
    struct mag_stack_slab *next;     /* [class lock] older slab of the class */
    struct mag_stack_slab *reg_next; /* [registry] */
    char *base;                      /* [const] the reservation */
    size_t stride;                   /* [const] bytes of a slot with its guard */
    uint32_t n_slots;                /* [const] */
    uint32_t n_carved;               /* [class lock] slots below this one were handed out */
    unsigned bytes_log2;             /* [const] of a stack */
    struct mag_stack_slot slots[];
};

/* Every slab of the process, for the fault handler. */
static struct {
    struct mag_spin lock;
    struct mag_stack_slab *head; /* [lock] newest first */
} registry;

static mag_atomic(bool) no_guard_install; /* [any] the kernel is older than 6.13 */
static mag_atomic(bool) guards_hold;      /* [any] the first one was tried out */
static mag_atomic(uint32_t) n_mprotects;  /* [any] guards made by mprotect */

/* ---- places --------------------------------------------------------------------------- */

static uint32_t slots_of_class(unsigned bytes_log2)
{
    uint32_t n = SLAB_BYTES >> bytes_log2;

    return n > SLOTS_MAX ? SLOTS_MAX : n < SLOTS_MIN ? SLOTS_MIN : n;
}

static struct mag_stack_slab *slab_of(struct mag_stack_slot *slot)
{
    return mag_container_of(slot - slot->index, struct mag_stack_slab, slots);
}

static char *guard_of(const struct mag_stack_slab *slab, uint32_t index)
{
    return slab->base + index * slab->stride;
}

static void fill(struct mag_stack *st, struct mag_stack_slab *slab, uint32_t index)
{
    st->lo = guard_of(slab, index) + GUARD_BYTES;
    st->bytes = ((size_t)1 << slab->bytes_log2) - index % COLOURS * COLOUR_BYTES;
    st->slab = slab;
    st->slot = &slab->slots[index];
    st->valgrind_id = 0;
}

static struct mag_stack_class *class_of(struct mag_stacks *s, size_t bytes)
{
    unsigned log2 = LOG2_MIN;

    if (bytes > MAG_STACK_BYTES_MAX)
        return NULL;
    while ((size_t)1 << log2 < bytes)
        log2++;
    return &s->classes[log2 - LOG2_MIN];
}

/* relaxed: the readers without the lock need no more than this one byte. */
static void set_state(struct mag_stack_slot *slot, enum slot_state state)
{
    mag_store_relaxed(&slot->state, (uint8_t)state);
}

static bool has_state(const struct mag_stack_slot *slot, enum slot_state state)
{
    return mag_load_relaxed(&slot->state) == state;
}

/* relaxed: the sentence is constant data. */
static int fail(struct mag_stacks *s, int err, const char *why)
{
    mag_store_relaxed(&s->why, why);
    return err;
}

/* ---- slabs ---------------------------------------------------------------------------- */

static void slab_register(struct mag_stack_slab *slab)
{
    mag_spin_lock(&registry.lock);
    slab->reg_next = registry.head;
    registry.head = slab;
    mag_spin_unlock(&registry.lock);
}

static void slab_unregister(struct mag_stack_slab *slab)
{
    struct mag_stack_slab **p = &registry.head;

    mag_spin_lock(&registry.lock);
    while (*p != slab)
        p = &(*p)->reg_next;
    *p = slab->reg_next;
    mag_spin_unlock(&registry.lock);
}

static struct mag_stack_slab *slab_new(unsigned bytes_log2, uint32_t n_slots)
{
    size_t stride = GUARD_BYTES + ((size_t)1 << bytes_log2);
    struct mag_stack_slab *slab = mag_mem_zalloc(sizeof *slab + n_slots * sizeof slab->slots[0]);
    void *base;

    if (!slab)
        return NULL;
    if (mag_sys_mmap(NULL, stride * n_slots, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0, &base) < 0) {
        mag_mem_free(slab);
        return NULL;
    }
    /* Else one touch costs 64 KiB or 2 MiB.  -EINVAL where the kernel has no huge pages. */
    (void)mag_sys_madvise(base, stride * n_slots, MADV_NOHUGEPAGE);
    slab->base = base;
    slab->stride = stride;
    slab->n_slots = n_slots;
    slab->bytes_log2 = bytes_log2;
    for (uint32_t i = 0; i < n_slots; i++)
        slab->slots[i].index = i;
    return slab;
}

static void slab_free(struct mag_stack_slab *slab)
{
    for (uint32_t i = 0; i < slab->n_carved; i++)
        if (slab->slots[i].guard == GUARD_MPROTECT)
            mag_fetch_sub(&n_mprotects, 1);
    (void)mag_sys_munmap(slab->base, slab->stride * slab->n_slots);
    mag_mem_free(slab);
}

/* One more slab for the class, unless somebody was faster.  -ENOMEM. */
static int grow(struct mag_stack_class *c, uint32_t n_slots)
{
    struct mag_stack_slab *slab = slab_new(c->bytes_log2, n_slots);
    bool wanted;

    if (!slab)
        return -ENOMEM;
    mag_spin_lock(&c->lock);
    wanted = !c->slabs || c->slabs->n_carved == c->slabs->n_slots;
    if (wanted) {
        slab_register(slab);
        slab->next = c->slabs;
        c->slabs = slab;
    }
    mag_spin_unlock(&c->lock);
    if (!wanted)
        slab_free(slab);
    return 0;
}

/* ---- guards --------------------------------------------------------------------------- */

static int guard_mprotect(struct mag_stacks *s, struct mag_stack_slot *slot, char *guard)
{
    int rc = -ENOMEM;

    if (mag_fetch_add(&n_mprotects, 1) < MPROTECTS_MAX)
        rc = mag_sys_mprotect(guard, GUARD_BYTES, PROT_NONE);
    if (rc == 0) {
        slot->guard = GUARD_MPROTECT;
        return 0;
    }
    mag_fetch_sub(&n_mprotects, 1);
    if (s->unguarded_ok)
        return 0;
    return fail(s, -ENOMEM,
                "no more guard pages: before Linux 6.13 a process can guard about 16,000 "
                "stacks (vm.max_map_count)");
}

/*
 * An emulator that ignores advice it does not know (qemu-user does) would leave every stack
 * unguarded without a word, so the first guard of a process is tried: the kernel must
 * refuse to write there.
 */
static int guard_madvise(char *guard)
{
    int rc = mag_sys_madvise(guard, GUARD_BYTES, MADV_GUARD_INSTALL);

    /* relaxed: at worst two threads try. */
    if (rc < 0 || mag_load_relaxed(&guards_hold))
        return rc;
    if (mag_sys_getrandom(guard, 1) != -EFAULT)
        return -EINVAL;
    mag_store_relaxed(&guards_hold, true);
    return 0;
}

/*
 * -EINVAL means a kernel before 6.13, or locked memory (mlockall); both are answered by
 * mprotect, from then on for the whole process.  A slot that stayed without a guard tries
 * again at its next use.
 */
static int guard_install(struct mag_stacks *s, struct mag_stack_slot *slot)
{
    char *guard = guard_of(slab_of(slot), slot->index);
    int rc;

    /* relaxed: at worst one more call finds out the same. */
    if (!mag_load_relaxed(&no_guard_install)) {
        rc = guard_madvise(guard);
        if (rc == 0) {
            slot->guard = GUARD_MADVISE;
            return 0;
        }
        if (rc != -EINVAL)
            return fail(s, -ENOMEM, "no memory for the guard of a stack");
        mag_store_relaxed(&no_guard_install, true);
    }
    return guard_mprotect(s, slot, guard);
}

/* ---- taking and giving slots ------------------------------------------------------------ */

static struct mag_stack_slot *list_pop(struct mag_stack_slot **list)
{
    struct mag_stack_slot *slot = *list;

    if (slot)
        *list = slot->next;
    return slot;
}

static void list_push(struct mag_stack_slot **list, struct mag_stack_slot *slot)
{
    slot->next = *list;
    *list = slot;
}

/* A free slot, the warmest first, or NULL.  On NULL *n_next is the size of the next slab. */
static struct mag_stack_slot *slot_take(struct mag_stack_class *c, uint32_t *n_next)
{
    uint32_t limit = slots_of_class(c->bytes_log2);
    struct mag_stack_slot *slot;

    mag_spin_lock(&c->lock);
    if ((slot = list_pop(&c->warm)) != NULL)
        c->n_warm--;
    else if ((slot = list_pop(&c->cold)) == NULL && c->slabs &&
             c->slabs->n_carved < c->slabs->n_slots)
        slot = &c->slabs->slots[c->slabs->n_carved++];
    if (slot) {
        set_state(slot, USED);
        c->n_used++;
    } else {
        *n_next = c->slabs ? c->slabs->n_slots * 2 : SLOTS_FIRST;
        if (*n_next > limit)
            *n_next = limit;
    }
    mag_spin_unlock(&c->lock);
    return slot;
}

static void slot_give_cold(struct mag_stack_class *c, struct mag_stack_slot *slot)
{
    mag_spin_lock(&c->lock);
    set_state(slot, COLD);
    list_push(&c->cold, slot);
    c->n_used--;
    mag_spin_unlock(&c->lock);
}

/* The warm list, if it is time to trim and nobody else does; it is then the caller's. */
static struct mag_stack_slot *slot_give_warm(struct mag_stack_class *c, struct mag_stack_slot *slot)
{
    struct mag_stack_slot *to_trim = NULL;

    mag_spin_lock(&c->lock);
    set_state(slot, WARM);
    list_push(&c->warm, slot);
    c->n_used--;
    c->n_warm++;
    if (MAG_UNLIKELY(c->n_warm >= c->trim_at) && !c->is_trimming) {
        c->is_trimming = true;
        to_trim = c->warm;
        c->warm = NULL;
        c->n_warm = 0;
    }
    mag_spin_unlock(&c->lock);
    return to_trim;
}

/* ---- giving pages back ------------------------------------------------------------------ */

/* Puts the first n of the list back for use at once and returns the rest. */
static struct mag_stack_slot *trim_keep(struct mag_stack_class *c, struct mag_stack_slot *list,
                                        size_t n)
{
    struct mag_stack_slot *last = list, *rest;

    for (size_t i = 1; i < n; i++)
        last = last->next;
    rest = last->next;
    mag_spin_lock(&c->lock);
    last->next = c->warm;
    c->warm = list;
    c->n_warm += n;
    mag_spin_unlock(&c->lock);
    return rest;
}

/* If a run of slots to trim starts here, and it is long enough: one madvise for all. */
static void trim_run(struct mag_stack_slot *slot)
{
    struct mag_stack_slab *slab = slab_of(slot);
    uint32_t from = slot->index, to = from;

    if (!has_state(slot, TRIM) || (from > 0 && has_state(slot - 1, TRIM)))
        return;
    while (to < slab->n_slots && has_state(&slab->slots[to], TRIM))
        to++;
    if (to - from < RUN_MIN)
        return;
    if (mag_sys_madvise(guard_of(slab, from), (to - from) * slab->stride, MADV_DONTNEED) < 0)
        return;
    for (uint32_t i = from; i < to; i++)
        set_state(&slab->slots[i], COLD);
}

/* Back into the lists: what has pages still is warm. */
static void trim_end(struct mag_stack_class *c, struct mag_stack_slot *list)
{
    size_t high = slots_of_class(c->bytes_log2);
    struct mag_stack_slot *slot;

    mag_spin_lock(&c->lock);
    while ((slot = list_pop(&list)) != NULL) {
        if (has_state(slot, COLD)) {
            list_push(&c->cold, slot);
            continue;
        }
        set_state(slot, WARM);
        list_push(&c->warm, slot);
        c->n_warm++;
    }
    c->trim_at = c->n_warm + (c->n_warm / 4 > high / 2 ? c->n_warm / 4 : high / 2);
    c->is_trimming = false;
    mag_spin_unlock(&c->lock);
}

/* Only the trimmer writes TRIM and what replaces it, so it may read neighbours unlocked. */
static void trim(struct mag_stack_class *c, struct mag_stack_slot *list)
{
    struct mag_stack_slot *slot;

    list = trim_keep(c, list, slots_of_class(c->bytes_log2) / 2);
    for (slot = list; slot; slot = slot->next)
        set_state(slot, TRIM);
    for (slot = list; slot; slot = slot->next)
        trim_run(slot);
    trim_end(c, list);
}

/* ---- the life of stacks ----------------------------------------------------------------- */

int mag_stacks_init(struct mag_stacks *s, bool unguarded_ok)
{
    *s = (struct mag_stacks){ .unguarded_ok = unguarded_ok, .why = "" };
    for (unsigned i = 0; i < MAG_STACK_CLASSES; i++) {
        s->classes[i].bytes_log2 = LOG2_MIN + i;
        s->classes[i].trim_at = slots_of_class(LOG2_MIN + i);
    }
    return 0;
}

void mag_stacks_fini(struct mag_stacks *s)
{
    for (unsigned i = 0; i < MAG_STACK_CLASSES; i++) {
        struct mag_stack_class *c = &s->classes[i];
        struct mag_stack_slab *slab;

        MAG_CHECK(c->n_used == 0 && !c->is_trimming);
        while ((slab = c->slabs) != NULL) {
            c->slabs = slab->next;
            slab_unregister(slab);
            slab_free(slab);
        }
        c->warm = c->cold = NULL;
    }
}

int mag_stack_get(struct mag_stacks *s, size_t bytes, struct mag_stack *out)
{
    struct mag_stack_class *c = class_of(s, bytes);
    struct mag_stack_slot *slot;
    uint32_t n_next;
    int rc;

    if (!c)
        return fail(s, -EINVAL, "a stack larger than 64 MiB");
    /* Each turn adds a slab or finds that another thread did. */
    while ((slot = slot_take(c, &n_next)) == NULL)
        if ((rc = grow(c, n_next)) < 0)
            return fail(s, rc, "no memory or address space for more stacks");
    if (MAG_UNLIKELY(slot->guard == GUARD_NONE) && (rc = guard_install(s, slot)) < 0) {
        slot_give_cold(c, slot);
        return rc;
    }
    fill(out, slab_of(slot), slot->index);
    out->valgrind_id = VALGRIND_STACK_REGISTER(out->lo, out->lo + out->bytes);
    /* What the last user's calls popped is forbidden to memcheck until the next call. */
    VALGRIND_MAKE_MEM_UNDEFINED(out->lo, out->bytes);
    return 0;
}

void mag_stack_put(struct mag_stacks *s, struct mag_stack *st)
{
    struct mag_stack_class *c = &s->classes[st->slab->bytes_log2 - LOG2_MIN];
    struct mag_stack_slot *to_trim;

    MAG_CHECK(has_state(st->slot, USED)); /* invariant 1 */
    VALGRIND_STACK_DEREGISTER(st->valgrind_id);
#if MAG_ASAN
    /* A fiber that left for good did not leave its frames, so they are poisoned still. */
    ASAN_UNPOISON_MEMORY_REGION(st->lo, st->bytes);
#endif
    to_trim = slot_give_warm(c, st->slot);
    if (MAG_UNLIKELY(to_trim != NULL))
        trim(c, to_trim);
    st->lo = NULL;
}

const char *mag_stack_why(struct mag_stacks *s)
{
    return mag_load_relaxed(&s->why); /* relaxed: see fail() */
}

/* ---- measuring -------------------------------------------------------------------------- */

/* The deepest word that is not zero in [p, end), or end.  Frames of others: no checking. */
__attribute__((no_sanitize("address"), no_sanitize("thread"))) static const char *
first_used(const char *p, const char *end)
{
    for (; p < end; p += sizeof(uint64_t))
        if (*(const volatile uint64_t *)p != 0)
            return p;
    return end;
}

size_t mag_stack_high_water(const struct mag_stack *st)
{
    const char *top = st->lo + st->bytes;
    unsigned char vec[MINCORE_PAGES];

    for (char *p = st->lo; p < top; p += sizeof vec * MAG_PAGE_BYTES) {
        size_t n = ((size_t)(top - p) + MAG_PAGE_BYTES - 1) / MAG_PAGE_BYTES;

        n = n < sizeof vec ? n : sizeof vec;
        if (mag_sys_mincore(p, n * MAG_PAGE_BYTES, vec) < 0)
            return 0; /* the kernel does not say */
        for (size_t i = 0; i < n; i++) {
            const char *page = p + i * MAG_PAGE_BYTES, *end = page + MAG_PAGE_BYTES;
            const char *used = end = end < top ? end : top;

            if (vec[i] & 1)
                used = first_used(page, end);
            if (used < end)
                return (size_t)(top - used);
        }
    }
    return 0;
}

/* ---- whose guard is it ------------------------------------------------------------------ */

static bool slab_guard_hit(struct mag_stack_slab *slab, const void *addr, struct mag_stack *out)
{
    uintptr_t offset = (uintptr_t)addr - (uintptr_t)slab->base;
    uint32_t index;

    if (offset >= slab->stride * slab->n_slots || offset % slab->stride >= GUARD_BYTES)
        return false;
    index = (uint32_t)(offset / slab->stride);
    if (!has_state(&slab->slots[index], USED))
        return false;
    fill(out, slab, index);
    return true;
}

bool mag_stack_guard_hit(const void *addr, struct mag_stack *out)
{
    bool hit = false;

    for (int i = 0; !mag_spin_try(&registry.lock); i++) {
        if (i == SPINS_MAX)
            return false;
        mag_cpu_relax();
    }
    for (struct mag_stack_slab *slab = registry.head; slab && !hit; slab = slab->reg_next)
        hit = slab_guard_hit(slab, addr, out);
    mag_spin_unlock(&registry.lock);
    return hit;
}
