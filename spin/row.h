// A model of the update protocol of one row: n data members D and the parity member P. The story and its bounds are
// told in README.md; the code that it is a model of is src/iom/row*.c and resolve*.c.
//
// Contents. Write i of a member sets bit i of its block, so a block is the set of the writes that it contains, xor is
// xor, and a parity block is one such set a member. Whatever is not an exact prefix of the writes of its member is
// torn, lost or mixed up.
//
// A disk is a row of *images*: image 0 is durable, each later one has one more batch of the journal that is committed
// and not flushed. A power cut or the death of a process leaves one of the images, and each block that was written and
// not flushed is there or not, by itself. A flush makes the last image durable.
#pragma once
#include "explore.h"
#include <string.h>

#define MEMBERS_MAX 3 // D's
#define IMAGES_MAX 4
#define POSTS_MAX 9

// The transitions. Each has its counterpart in the code, where a comment "model: NAME" stands (scripts/lint-model).
#define TRANSITIONS(X)                                                                                                 \
    X(D_WRITE, "takes a write into its open layer and posts the delta")                                                \
    X(D_ANSWERED, "hears that P holds what it has got: the writes are answered")                                       \
    X(D_TAKE_BACK, "hears that P refused the delta and takes the write back")                                          \
    X(D_FREEZE, "freezes: block written, UPDATE in the journal, FREEZE posted; no flush yet")                          \
    X(D_HARDENED, "flushes: block and UPDATE are durable; HARDENED posted")                                            \
    X(D_TOLD_SETTLED, "gets SETTLED")                                                                                  \
    X(D_SETTLE, "puts CHUNK, deletes UPDATE, answers fsync; no flush")                                                 \
    X(P_DELTA, "P adds the delta to what it holds of")                                                                 \
    X(P_REFUSE, "P has no place for the delta of")                                                                     \
    X(P_FREEZE, "P gets FREEZE of")                                                                                    \
    X(P_TOLD_HARDENED, "P gets HARDENED of")                                                                           \
    X(P_FORM, "P forms the next parity of all that is frozen: block written, UPDATE in the journal; no flush yet")     \
    X(P_HARDENED, "P flushes: block and UPDATE are durable")                                                           \
    X(P_SETTLE, "P puts CHUNK, deletes UPDATE, posts SETTLED to the participants; no flush")                           \
    X(STOP_HOLD, "stops: what it holds is written, its records are in the journal; no flush yet")                      \
    X(STOP_DOWN, "has stopped: all it held is durable")                                                                \
    X(R_SETTLED, "(a): D's whose UPDATE the settled parity includes complete it")                                      \
    X(R_DECIDE, "(b): P looks who has its block")                                                                      \
    X(R_TAKE, "(b): the one without gets its block, reconstructed:")                                                   \
    X(R_CONCLUDE, "P puts CHUNK (new or old) and deletes UPDATE")                                                      \
    X(R_COMPLETE, "(a) again, for what went forward")                                                                  \
    X(R_LAYERS, "the second layer goes over the first")                                                                \
    X(R_HELD, "D's take what P held, frozen or open, unless they have it")                                             \
    X(R_DROP_HELD, "P drops the records that came back")                                                               \
    X(R_ENTER, "(c): UPDATEs that the parity does not include enter it: block and UPDATE at P")                        \
    X(R_FINISH, "(c): D's complete what entered and drop the rest")                                                    \
    X(R_PHASE, "all flush; the next phase begins")                                                                     \
    X(R_SERVE, "no UPDATE is left: the array serves")
// What the world does.
#define CHANCES(X)                                                                                                     \
    X(FAILS, "something fails, or a stop is asked for: the array will stop")                                           \
    X(CRASH, "loses its memory")                                                                                       \
    X(CRASH_ALL, "all lose what is not on disk, recovery begins again")                                                \
    X(BREAK, "connection with P breaks and comes back:")

// The rules, each of which can be left out. Names as in src/base/mutant.h where that has the same.
#define RULES(X)                                                                                                       \
    X(ACK, "a write is answered when P holds its delta (I10)")                                                         \
    X(PENDING, "no second write and no freeze of a row before P has answered its first delta")                         \
    X(ONE_EACH, "P keeps one accumulator a member, not one sum")                                                       \
    X(FREEZE_ONE, "D freezes again only after SETTLED (I4)")                                                           \
    X(D_FLUSH, "D tells P only when its part is on disk")                                                              \
    X(P_FLUSH, "P counts its own part only when it is on disk")                                                        \
    X(MERGE, "a freeze that comes while a version is in flight waits for the next")                                    \
    X(I1, "an old place is not used again before the batch that released it is durable")                               \
    X(I2, "an old place is released by the batch that settles, not before")                                            \
    X(I3, "fsync is answered when the row is settled, not when the parity is on disk")                                 \
    X(I4, "P waits for all participants before the version is over")                                                   \
    X(NUMBERS, "a message that comes again after a broken connection is known by its number")                          \
    X(RESEND, "after a broken connection what was not taken is sent again")                                            \
    X(ORDER, "messages of a pair are taken in order")                                                                  \
    X(EPOCH, "messages of an epoch that is over are dropped")                                                          \
    X(I9, "who comes back with empty memory counts as failed: the array stops")                                        \
    X(STOP, "at a stop D puts on disk what is dirty")                                                                  \
    X(SECOND, "at a stop D puts on disk what lies over a version in flight")                                           \
    X(HELD, "at a stop P puts on disk what it holds of each D")                                                        \
    X(HELD_SYNC, "at a stop what P held frozen is on disk before what it held open is written")                        \
    X(REPLAY, "replay ends with a flush before anybody is told what it found")                                         \
    X(A, "(a) before (b)")                                                                                             \
    X(A_NEVER, "(a): a D completes what the settled parity includes")                                                  \
    X(VERSIONS, "CHUNK tells the version: who has completed has its block")                                            \
    X(B, "(b) goes forward where it can")                                                                              \
    X(B_BLIND, "(b) goes forward only if P's own block is on disk")                                                    \
    X(B_TWO, "(b) goes forward with at most one without")                                                              \
    X(B_GIVE, "(b) gives the one without its block")                                                                   \
    X(TAKE, "a reconstructed block is on disk before it is named")                                                     \
    X(TAKE_FIRST, "P keeps its UPDATE until the one without has its block on disk")                                    \
    X(LAYERS, "the second layer comes back over the first")                                                            \
    X(LAYERS_LAST, "the second layer comes back after what P held")                                                    \
    X(HELD_KNOWN, "a D takes what P held only if it has not got it")                                                   \
    X(HELD_BASE, "what P held goes over D's newest block")                                                             \
    X(HELD_ORDER, "what was frozen comes back before what was open")                                                   \
    X(HELD_DROP, "P drops what it held only when the parity has it")                                                    \
    X(HELD_ODD, "what P held open comes back one version below D's next")                                              \
    X(C, "(c): UPDATEs that the parity does not include enter it")                                                     \
    X(C_BAD, "(c) takes only blocks that are on disk")                                                                 \
    X(C_BARE, "(c) is a version with an UPDATE of its own")                                                            \
    X(C_FIRST, "(c) comes after (b), never into a version in flight")                                                  \
    X(C_REST, "(c) drops what never came to disk")                                                                     \
    X(FLUSHED, "each step of recovery is durable before the next begins and before anybody serves")

#define NAME_OF(name, text) name,
#define RULE_OF(name, text) RULE_##name,
enum what { TRANSITIONS(NAME_OF) CHANCES(NAME_OF) WHAT_COUNT };
enum rule { RULES(RULE_OF) RULES_COUNT };
#undef NAME_OF
#undef RULE_OF

typedef uint8_t set; // of writes
#define FOREIGN 0x80 // bits of other members: mixed up

// What is known of a block that a record names.
enum block { BLOCK_NONE, BLOCK_GOOD, BLOCK_WRITTEN /* not flushed */, BLOCK_BAD };
struct record {
    uint8_t there, version, block;
    set content;
}; // an UPDATE, or a HELD record
struct d_image {
    uint8_t version, block; // of CHUNK
    set content;
    struct record update, second;
};
enum held { HELD_FROZEN, HELD_OPEN };
struct p_image {                // P's disk, as far as it is about this member
    uint8_t version;            // in CHUNK
    set content;                // the settled parity's part of it
    uint8_t part, part_version; // in UPDATE
    set next;                   // the new parity's part of it
    struct record held[2];
};
struct p_head {
    uint8_t block, update, next_block;
}; // the rest of P's disk: the settled parity's block; UPDATE and its block

enum post_kind { POST_NONE, POST_DELTA, POST_FREEZE, POST_HARDENED };
struct post {
    uint8_t kind, version;
    set delta;
};
struct acc {
    uint8_t there, version, taken, hardened;
    set delta;
};
enum life { SERVES, HOLDS /* stopping, records written, not flushed */, DOWN };
enum lost {
    KEPT,
    LOST /* its memory, since the array served */,
    LOST_UNFLUSHED /* with REPLAY left out: what is on its disk never saw a flush */
};
enum d_state { D_IDLE, D_HARDENING_, D_HARDENED_, D_SETTLING };
enum p_state { P_IDLE, P_FORMING, P_HARDENED_ };

struct member {
    uint8_t life, lost; // lost: enum lost
    uint8_t state, version, unanswered, pending, refused;
    set newest, frozen; // contents: all layers; what is frozen or settled
    uint8_t images;     // of its disk, beyond image 0
    struct d_image d[IMAGES_MAX];
    struct p_image p[IMAGES_MAX];
    struct acc open, frozen_acc;
    struct post out[POSTS_MAX]; // D -> P
    uint8_t outs;
    uint8_t told;                // P -> D: SETTLED of this version
    struct post last;            // the last that P took, which D does not know to be taken
    set written, answered, firm; // what was asked for; answered at toughness 1; and by fsync
};

enum step { // what recovery does next
    SERVICE,
    STEP_SETTLED,
    STEP_PHASE_0,
    STEP_DECIDE,
    STEP_CONCLUDE,
    STEP_COMPLETE,
    STEP_PHASE_1,
    STEP_LAYERS,
    STEP_HELD,
    STEP_PHASE_2,
    STEP_ENTER,
    STEP_ENTERED,
    STEP_FINISH,
    STEP_PHASE_4,
    STEP_DROP,
    STEP_SERVE,
};
enum forward { BACK, FORWARD, GIVEN }; // GIVEN: and the one without has been given what it lacks. Of what was held: one kind, both
enum fault {
    FAULT_NONE,
    FAULT_OTHER_VERSION,
    FAULT_UNREADABLE,
    FAULT_ASKED_IN_VAIN,
    FAULT_LEFT,
    FAULT_TORN,
    FAULT_FIRM,
    FAULT_ANSWERED,
    FAULT_PARITY,
    FAULT_I2,
    FAULT_I6,
    FAULT_I6_ANSWERED,
    FAULT_COUNT
};

struct state {
    uint8_t step, failing, fault,
        forward; // forward: what (b) has decided; in phase 2: whether D was given what is to be dropped
    uint8_t p_life, p_lost, p_state, p_images;
    uint8_t writes_left, failures_left, breaks_left, refusals_left;
    struct p_head head[IMAGES_MAX];
    struct member m[MEMBERS_MAX];
};

_Static_assert(sizeof(struct state) <= EXPLORE_STATE_MAX, "a state must fit the explorer");

struct bounds {
    unsigned members, writes, failures, breaks, refusals;
};
extern struct bounds bounds;
extern enum rule left_out; // RULES_COUNT: none
static inline bool holds(enum rule r) {
    return left_out != r;
}

// row_disk.c: images
struct d_image *d_now(struct member *m);
struct d_image *d_batch(struct member *m); // one more image, to be changed
void d_flush(struct member *m);
struct p_head *p_now(struct state *s);
struct p_image *p_of(struct state *s, unsigned k);
struct p_head *p_batch(struct state *s);
void p_flush(struct state *s);
// The last batch releases places that the images before it name; with I1 left out something else lies there at once.
void d_release(struct member *m);
void p_release(struct state *s, bool next); // the new parity's place, or the old one's
// What a crash may leave of a disk: calls fn for each outcome, which is image 0 alone.
void d_outcomes(const struct state *s, unsigned k, void (*fn)(struct state *s, void *arg), void *arg);
void p_outcomes(const struct state *s, void (*fn)(struct state *s, void *arg), void *arg);

// row_service.c, row_stop.c, row_recover.c: the steps that lead on from a state
void service_steps(const struct state *s, struct explorer *x);
void stop_steps(const struct state *s, struct explorer *x);
void recovery_steps(const struct state *s, struct explorer *x);
void close_connection(struct state *s, unsigned k);
void d_forget(struct member *m);
void p_forget(struct state *s);

// row_check.c
const char *row_fault(const void *state);
enum fault check_serving(const struct state *s);
enum fault check_all_down(const struct state *s); // loss of one for good, with all others stopped in order
bool row_may_end(const void *state);
void row_print(const void *state, FILE *to);
