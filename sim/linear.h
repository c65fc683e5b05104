// Is there an order? What several clients did at once to a small name space, as they saw it, and a search for one order of it, one operation
// after the other, that a simple name space answers in the same way: each operation somewhere between its beginning and its end. (Wing and Gong;
// what was tried is remembered, as Lowe does.)
//
//     struct linear *l = linear_create();
//     linear_found(l, &state);                                what there is at the beginning
//     struct linear_op *o = linear_invoke(l, &(struct linear_op){.kind = LINEAR_MAKE, .dir = 1, .name = 2});
//     ...                                                     other clients begin and end theirs
//     linear_return(l, o, &(struct linear_answer){OK, .object = 7});
//     if (!linear_settle(l)) puts(linear_why(l));             at an instant when nothing is under way
//
// The search goes from one quiet instant to the next (linear_settle) and keeps all states in which the name space may be then; so it never goes
// back, and what it costs depends on how much is under way at once, not on how long the run is.
//
//   lost      its client died with its MX: it takes effect once or not at all, until linear_over says that the time is over. Quiet instants do not
//             wait for it. (Looks that are lost told nothing.)
//   listing   each of its names is a look of its own, in no order: a name that was there all the time is seen, one that never was is not (what
//             POSIX says of readdir), and none is seen twice (what mendfs says beyond that).
//   refusals  are results as any other: there is an instant at which the reason that was told held. If several do, either may be told.
//   crash     linear_cut: what was answered before it is explained once more; what was under way is lost. What comes after begins with what is
//             found then (linear_found), which need not be the state of one instant: what was not durable may be taken back, each directory's at its
//             own IOM. So of this it is asked: each name leads to something to which it led since it was durable, in one order at least; but for
//             names of what was under way, which may have met again what was taken back.
//
// Objects are numbers from 1, known by what they are told to be; who made one whose making was lost is found out by the search. Numbers from
// LINEAR_NOBODYS on are its own.
#pragma once
#include "base/common.h"
#include "base/err.h"

#define LINEAR_NAMES 4u  // of a directory, 0 to 3
#define LINEAR_DIRS 15u  // at once
#define LINEAR_ROOT 1u   // the directory in which all is; its own name and parent are of no interest
#define LINEAR_NOBODYS 0x8000u

struct linear_dir {
    uint16_t id, parent;
    uint16_t at[LINEAR_NAMES]; // an object; 0: no such name
};
struct linear_state { // directories in ascending order of id; what has a name and is none of them is a file
    uint32_t dirs;
    struct linear_dir dir[LINEAR_DIRS];
};

enum linear_kind {
    LINEAR_MAKE,   // a file or a directory at (dir, name), which must be free. Tells the object
    LINEAR_LINK,   // (dir, name) leads to object, too
    LINEAR_UNLINK, // (dir, name), no directory
    LINEAR_RMDIR,  // (dir, name), an empty directory
    LINEAR_RENAME, // (dir, name) to (to_dir, to_name)
    LINEAR_LOOKUP, // Tells the object
    LINEAR_PARENT, // of dir. Tells the object
    LINEAR_LINKS,  // of object, file or directory. Tells its link count
    LINEAR_LIST,   // dir. Tells names, objects, and how often each was seen
};
enum linear_how { LINEAR_OVER, LINEAR_NOREPLACE, LINEAR_EXCHANGE };
struct linear_op {
    enum linear_kind kind;
    enum linear_how how; // of a rename
    bool makes_dir;
    uint16_t client, dir, name, to_dir, to_name, object;
    // the checker's
    err e;
    uint16_t found;
    bool found_dir, claims; // claims: nobody is known to have made what was found, so one whose making was lost did
    bool lost, straddles;
    uint32_t links;
    uint64_t began, ended; // instants of its own clock
};
struct linear_answer {
    err e;
    uint16_t object; // of what was made or looked up
    bool is_dir;     // likewise
    uint32_t links;
    uint16_t listed[LINEAR_NAMES]; // the object of each name
    uint8_t seen[LINEAR_NAMES];
    uint16_t listed_dirs;          // bit n: that of name n is a directory
};

struct linear;
struct linear *linear_create(void);
void linear_destroy(struct linear *l);

// An operation is the checker's. Each but a lost one ends with return or drop, and is not to be used after that.
struct linear_op *linear_invoke(struct linear *l, const struct linear_op *what);
void linear_return(struct linear *l, struct linear_op *o, const struct linear_answer *a);
void linear_drop(struct linear *l, struct linear_op *o); // it had no effect and told nothing
struct linear_op *linear_lost(struct linear *l, struct linear_op *o); // NULL: it only looked, and is dropped
void linear_over(struct linear *l, struct linear_op *o); // of a lost one: if it has not taken effect by now it never does
void linear_straddles(struct linear *l, struct linear_op *o); // instead of return: a crash came, and linear_cut will

// Nothing is under way but what is lost. False: there is no order; linear_why says what stands against it, linear_tell_all tells the operations.
MUST_USE bool linear_settle(struct linear *l);
const char *linear_why(const struct linear *l);
void linear_tell_all(const struct linear *l, void (*line)(void *ctx, const char *text), void *ctx);

void linear_durable(struct linear *l); // at a quiet instant that has been settled: what is so now is on disk
// After a crash of all, nothing being under way but what is lost. Then operations begin again only after linear_found.
MUST_USE bool linear_cut(struct linear *l);
// What there is now, on disk, nothing being under way, not even what is lost: at the beginning, and after linear_cut. False: it is not what may be
// left after that crash.
MUST_USE bool linear_found(struct linear *l, const struct linear_state *s);
// The most directories that there may have been at the last quiet instant.
uint32_t linear_dirs(const struct linear *l);
struct linear_counts { uint64_t ops, settled, states, most_states; }; // states: that the search came by
struct linear_counts linear_counts(const struct linear *l);

// ---- the simple name space (linear_model.c)
struct linear_dir *linear_dir_of(struct linear_state *s, uint16_t id); // NULL: no such directory
struct linear_dir *linear_dir_add(struct linear_state *s, uint16_t id, uint16_t parent); // empty; valid until the next one
uint32_t linear_links(const struct linear_state *s, uint16_t object); // its link count; 0: there is no such object
// Does the operation, with what it was answered, have its turn in this state? Then *s is what it leaves.
MUST_USE bool linear_step(struct linear_state *s, const struct linear_op *o);
bool linear_looks(const struct linear_op *o); // it leaves all as it was
void linear_tell(const struct linear_op *o, char *out, size_t cap);
