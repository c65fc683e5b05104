// Small scripted workloads, each a few operations of one or two clients, made to be cut at every I/O (sim/enumerate.h).
// Every script knows what it may find afterwards: its files by the oracle, its names by the states that they went
// through.
//
// What is written is thin: of each block only the first and the last sector are not zeros. So a block that is being
// written is three things to a power cut (whole, torn, not there) with two sectors at risk instead of eight, and all
// subsets of what is at risk can be tried.
#pragma once
#include "sim/array.h"
#include "sim/oracle.h"

#define SCRIPT_ACTORS 2
#define SCRIPT_FILES 3
#define SCRIPT_PLACES 6
#define SCRIPT_DIRS 3

struct stage;
struct actor { // a client: an MX node of its own and one task
    struct stage *stage;
    uint32_t n;
    struct node *node;
    struct mx *mx;
    struct mx_file *open[SCRIPT_FILES];
    bool busy, ready;
};
struct script {
    const char *name, *what;
    void (*co_prepare)(struct actor *a);            // by the first actor; on disk when it returns
    void (*co_act[SCRIPT_ACTORS])(struct actor *a); // then these, at the same time; the second may be NULL
    bool weak; // the failure of one may lose what was acknowledged (toughness 0, no protection)
};
struct names_state {
    struct handle at[SCRIPT_PLACES];
};             // what each place leads to; no handle: nothing
struct stage { // one run of one script
    struct array *array;
    struct oracle *oracle;
    const struct script *script;
    struct actor actor[SCRIPT_ACTORS], looker; // the looker comes when all is over and sees what there is
    uint64_t progress;                         // operations begun and ended, of all actors
    bool (*on_step)(void *ctx);                // one of these; true: a crash came of it. May be NULL
    void *ctx;
    struct handle dir[SCRIPT_DIRS];            // dir[0] is the root
    struct {
        struct ofile *of;
        struct handle h;
        bool tough;
    } file[SCRIPT_FILES];
    struct {
        uint8_t dir;
        const char *name;
    } place[SCRIPT_PLACES];
    uint32_t places;
    struct names_state state[16]; // state[durable] .. state[states-1] may be found after a crash
    uint32_t states, durable;
};

const struct script *script_find(const char *name); // NULL: there is none
const struct script *script_at(uint32_t i);         // NULL: there are no more

void stage_create(struct stage *s, struct array *a, struct oracle *o, const struct script *script);
void stage_prepare(struct stage *s);    // starts the actors; the first prepares
void stage_act(struct stage *s);        // lets them do what they are there for
void stage_look(struct stage *s);       // starts the looker
void stage_end_actors(struct stage *s); // they die, whatever they are doing
bool stage_busy(const struct stage *s);
void stage_dump(const struct stage *s); // on stderr: what each waits for

// ---- what actors do. An error is told to the oracle, except EIO of an fsync after a recovery.
void co_file_make(struct actor *a, uint32_t file, uint8_t dir, const char *name); // and opens it for all
void co_file_policy(struct actor *a, uint32_t file, const char *what, const char *value);
void co_dir_policy(struct actor *a, uint8_t dir, const char *what, const char *value);
void co_file_write(struct actor *a, uint32_t file, uint64_t off, uint32_t len, uint8_t byte);
void co_file_sync(struct actor *a, uint32_t file);
void co_file_close(struct actor *a, uint32_t file); // if it has it open
void co_file_cut(struct actor *a, uint32_t file, uint64_t size);
void co_pause(struct actor *a, uint64_t ns);

uint32_t stage_place(struct stage *s, uint8_t dir, const char *name); // a number for it
void co_name_dir(struct actor *a, uint8_t dir, uint32_t place);       // mkdir; it is dir[dir] from then on
void co_name_file(struct actor *a, uint32_t file, uint32_t place);    // creates it, if there is none yet, or links it
void co_name_move(struct actor *a, uint32_t from, uint32_t to);       // over what is there
void co_name_drop(struct actor *a, uint32_t place);                   // unlink, rmdir
void co_places_sync(struct actor *a);                                 // all directories: what there is now is durable
