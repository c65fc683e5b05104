// What the files of env/ share about tasks and timers.
#pragma once
#include "env/env.h"

// States of a task (one list node serves all of them):
//
//     ready    in env->ready                        env_spawn, wake, time, co_yield
//     running  in no list, env->running             env_run_ready
//     waiting  in a waitq, or in none (sleep);      co_wait, co_wait_until, co_sleep_until
//              its timer may be set as well
//
// Leaving `waiting` takes the task from the queue and cancels the timer in one step, so a wake and the time can race in
// either order and only the first counts.
struct task {
    struct list all;  // in env->tasks
    struct list node; // see the states
    struct env *env;
    struct co *co;
    const char *name;
    const char *label; // what it waits for; NULL: ready or running
    uint64_t since_ns; // waits or is ready since
    struct timer timer;
    bool timed_out;
    void (*fn)(void *arg);
    void *arg;
};
