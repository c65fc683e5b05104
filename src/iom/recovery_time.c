// What a stop and the recovery after it took, as this IOM saw it: one line in the log when it serves again.
//
//   stop ──hold──> store closed ──open──> ready ──others──> phase 0 ──here──> its part done ──others──> phase 1 ... ──> serves
//
// A phase lasts until the next begins here, or the service. It is a barrier, so all but the part done here is waiting for the others.
#include "iom/iom_inside.h"
#include <stdio.h>

struct recovery_time { // 0: has not been yet
    struct env *env;
    uint64_t stop_ns; // 0: the process began with this recovery
    uint64_t closed_ns, ready_ns, begun_ns[RECOVERY_PHASES], done_ns[RECOVERY_PHASES];
};

static const char *const name[] = {
    "mirror", "intents", "cuts", "settled", "decide", "held", "layers", "enter", "drop", "truncates",
    "turn", "catch up", "mirror again", "intents again", "cuts again", "truncates again",
};
static_assert(ARRAY_LEN(name) == RECOVERY_PHASES, "each phase of recovery.c has a name");

struct recovery_time *recovery_time_new(struct env *e) {
    struct recovery_time *t = mem_alloc(e->mem, sizeof *t);
    t->env = e;
    return t;
}

void recovery_time_stop(struct recovery_time *t) { *t = (struct recovery_time){.env = t->env, .stop_ns = env_now_ns(t->env)}; }
void recovery_time_closed(struct recovery_time *t) { t->closed_ns = env_now_ns(t->env); }
void recovery_time_ready(struct recovery_time *t) { t->ready_ns = env_now_ns(t->env); }
void recovery_time_phase(struct recovery_time *t, uint32_t phase) { t->begun_ns[phase] = env_now_ns(t->env); }
void recovery_time_done(struct recovery_time *t, uint32_t phase) { t->done_ns[phase] = env_now_ns(t->env); }

static uint32_t ms(uint64_t from_ns, uint64_t to_ns) { return (uint32_t)((to_ns - from_ns + MSEC(1) / 2) / MSEC(1)); }

// Those that took a millisecond and more.
static void list_phases(const struct recovery_time *t, uint64_t now_ns, char *out, size_t cap) {
    size_t len = 0;
    out[0] = 0;
    for (uint32_t p = 0; p < RECOVERY_PHASES && len < cap; p++) {
        uint32_t all = ms(t->begun_ns[p], p + 1 < RECOVERY_PHASES ? t->begun_ns[p + 1] : now_ns);
        if (!all) continue;
        len += (size_t)snprintf(out + len, cap - len, ", %s %u (%u here)", name[p], all, ms(t->begun_ns[p], t->done_ns[p]));
    }
}

void recovery_time_tell(struct recovery_time *t, uint64_t epoch) {
    uint64_t now_ns = env_now_ns(t->env);
    char phases[640], stop[64] = "";
    list_phases(t, now_ns, phases, sizeof phases);
    if (t->stop_ns)
        snprintf(stop, sizeof stop, "holding %u, opening the store %u, ", ms(t->stop_ns, t->closed_ns), ms(t->closed_ns, t->ready_ns));
    LOG(t->env, TRACE_INFO, "recovery of epoch %llu in ms: %sall ready %u, phases %u%s", (unsigned long long)epoch, stop,
        ms(t->ready_ns, t->begun_ns[0]), ms(t->begun_ns[0], now_ns), phases);
}
