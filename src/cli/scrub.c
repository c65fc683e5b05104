// mendfs scrub: has all IOMs read everything they hold, at a rate, beside clients, and mend what is bad; tells how far
// they are. The work is theirs (src/iom/row_scrub.c): it goes on if this command is interrupted, and who calls it again
// looks at the same scrub.
#include "cli/cli.h"
#include "cli/tool.h"

#include <stdio.h>
#include <string.h>

#define RATE_DEFAULT MIB(32)
#define LOOK_NS MSEC(200)
#define TELL_NS SEC(2)
#define ANSWER_NS SEC(10)

struct sum {
    uint64_t done, total, rows, bytes, found, mended, lost, skipped, elapsed_ns;
    bool running;
};
struct scrub {
    const struct conf *conf;
    uint64_t rate;
    bool background;
    uint64_t incarnation[ARRAY_IOMS_MAX]; // that began it: another has forgotten it
    struct sum sum;
    bool ran; // to its end; else why not has been said
};

static err co_begin_one(struct tool *t, const struct scrub *s, uint8_t i) {
    struct msg *q = hub_msg(t->hub, MSG_CONTROL, sizeof(struct req_control)), *reply;
    struct req_control *r = (struct req_control *)q->body;
    r->op = CONTROL_SCRUB;
    r->rate = le64_of(s->rate);
    err e = co_call(hub_peer(t->hub, (iom_id){i}, s->conf->iom[i].at), q,
                    &(struct call_opts){.deadline_ns = env_now_ns(t->e) + ANSWER_NS}, &reply);
    msg_free(reply);
    return e;
}

static bool co_begin(struct tool *t, struct scrub *s) {
    if (!co_all_up(t, s->conf)) {
        warn("not all IOMs are up; see which with: mendfs status, and start them with: mendfs up");
        return false;
    }
    for (uint8_t i = 0; i < s->conf->ioms; i++) {
        err e = co_begin_one(t, s, i);
        if (e) warn("IOM %u does not begin to scrub: %s%s", i, err_text(e), err_next(e));
        if (e) return false;
    }
    return true;
}

// Adds up what all say. An IOM that is another by now, or ended before its end, has not scrubbed.
static bool add_up(struct scrub *s, const struct iom_answer *a) {
    s->sum = (struct sum){0};
    for (uint8_t i = 0; i < s->conf->ioms; i++) {
        const struct wire_status *w = &a[i].s;
        uint64_t incarnation = a[i].answered ? le64_get(w->incarnation) : 0;
        if (!s->incarnation[i]) s->incarnation[i] = incarnation;
        if (!incarnation || incarnation != s->incarnation[i])
            return warn("IOM %u %s: the array has stopped meanwhile; when it runs again, scrub again", i, a[i].answered ? "was started anew" : "does not answer"), false;
        if (!w->scrub.running && le32_get(w->scrub.result) != OK)
            return warn("IOM %u could not scrub to the end; its log says why: DIR/log", i), false;
        s->sum.running |= w->scrub.running;
        s->sum.done += le64_get(w->scrub.done);
        s->sum.total += le64_get(w->scrub.total);
        s->sum.rows += le64_get(w->scrub.rows);
        s->sum.bytes += le64_get(w->scrub.bytes);
        s->sum.found += le64_get(w->scrub.found);
        s->sum.mended += le64_get(w->scrub.mended);
        s->sum.lost += le64_get(w->scrub.lost);
        s->sum.skipped += le64_get(w->scrub.skipped);
        s->sum.elapsed_ns = MAX(s->sum.elapsed_ns, le64_get(w->scrub.elapsed_ns));
    }
    return true;
}

static void tell_progress(const struct sum *x) {
    double s = (double)x->elapsed_ns / 1e9, part = x->total ? (double)x->done / (double)x->total : 0;
    char left[32] = "";
    if (part > 0 && s > 0) snprintf(left, sizeof left, ", %.0f s left", s / part - s);
    say("%3.0f%%: %llu of %llu segments, %.0f MiB/s%s; %llu bad blocks found, %llu repaired, %llu not", part * 100, (unsigned long long)x->done,
        (unsigned long long)x->total, s > 0 ? (double)x->bytes / s / (1 << 20) : 0, left, (unsigned long long)x->found, (unsigned long long)x->mended,
        (unsigned long long)x->lost);
    fflush(stdout);
}

static void co_scrub(struct tool *t) {
    struct scrub *s = t->arg;
    struct addresses at;
    struct iom_answer answer[ARRAY_IOMS_MAX];
    uint64_t told_ns = env_now_ns(t->e);
    addresses_of(s->conf, &at);
    if (!co_begin(t, s)) return;
    if (s->background) {
        s->ran = true;
        return;
    }
    for (;;) {
        co_ask_status(t, &at, env_now_ns(t->e) + ANSWER_NS, answer);
        if (!add_up(s, answer)) return;
        if (!s->sum.running) break;
        if (env_now_ns(t->e) >= told_ns + TELL_NS) {
            tell_progress(&s->sum);
            told_ns = env_now_ns(t->e);
        }
        co_sleep_until(t->e, env_now_ns(t->e) + LOOK_NS, "scrub: looks again");
    }
    s->ran = true;
}

static int scrub_run(int argc, char **argv) {
    const char *dir = NULL, *rest[1];
    struct conf conf;
    struct scrub s = {.conf = &conf, .rate = RATE_DEFAULT};
    const struct option_row options[] = {
        {"--dir", OPT_TEXT, &dir}, {"--rate", OPT_SIZE, &s.rate}, {"--background", OPT_FLAG, &s.background}, {0}};
    if (!args_parse(&cmd_scrub, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    if (!conf_need(dir, &conf)) return 2;
    tool_run(conf.cluster, co_scrub, &s);
    if (!s.ran) return fail(2, "could not scrub; the reasons stand above");
    const struct sum *x = &s.sum;
    if (s.background) {
        say("all IOMs scrub; how far they are: mendfs status --json, or mendfs scrub again");
        return 0;
    }
    if (x->skipped) say("%llu rows were written so often that they were never at rest: not looked at", (unsigned long long)x->skipped);
    if (x->lost) say("what could not be repaired is named in the logs of the IOMs: %s/log", conf.dir);
    say("%llu rows scrubbed, %llu bad blocks found, %llu repaired, %llu not", (unsigned long long)x->rows, (unsigned long long)x->found,
        (unsigned long long)x->mended, (unsigned long long)x->lost);
    return x->lost ? 1 : 0;
}

const struct command cmd_scrub = {
    "scrub",
    "mendfs scrub [--dir DIR] [--rate SIZE] [--background]",
    "Reads everything, verifies that parity equals data, and repairs what is bad; beside clients",
    "  --rate SIZE   what each IOM's rows may read a second; 32M by default, 0: as fast as it goes\n"
    "  --background  returns as soon as all have begun; `mendfs scrub` again waits for the same scrub\n\n"
    "Tells how far it is every two seconds; interrupted, the IOMs go on. What is repaired is named in their logs\n"
    "(DIR/log): object, segment, row, place. A block is rebuilt from the others of its row, written to a new place.\n"
    "Exit status: 0 all is well or was repaired, 1 something cannot be repaired, 2 could not run to the end.\n",
    scrub_run,
};
