// SPDX-License-Identifier: MIT
// consumer.cpp - magpie.h in C++11: tasks of plain functions, results, fork and join
#include <magpie.h>

#include <cstddef>
#include <cstdio>

static int square(void *frame, void *result)
{
    const int n = *static_cast<const int *>(frame);
    const int rc = mag_yield();

    *static_cast<int *>(result) = n * n;
    return rc;
}

// C++ needs the word struct where a function has the same name.
struct part {
    struct mag_fork fork;
    int             value;
};

static void set_part(struct mag_fork *fork)
{
    reinterpret_cast<part *>(fork)->value = 12;
}

static int app(void *, void *result)
{
    mag_task *task = nullptr;
    int       n = 6, value = 0;
    int       rc = mag_spawn(&task, square, &n, sizeof n, sizeof value, nullptr);
    part      p = part();

    if (rc == 0)
        rc = mag_await(task, &value, sizeof value);
    mag_fork(&p.fork, set_part); // inline, with its thread-local
    mag_join(&p.fork);
    *static_cast<int *>(result) = value + p.value;
    return rc;
}

int main()
{
    static const mag_co_type type = { "app", app, sizeof(int), 0, sizeof(int), 0,
                                      { __FILE__, __LINE__, "app" } };
    int value = 0;
    int rc = mag_run(mag_co_new(&type, nullptr), &value);

    std::printf("C++: %s, %d\n", mag_err_name(rc), value);
    return rc == 0 && value == 48 && mag_version() > 0 ? 0 : 1;
}
