// The embedded register: single-register Paxos with compare-and-swap (CASPaxos, Rystsov 2018) among 1-7 voters.
//
// A proposer (any IOM) chooses a ballot higher than all it has seen and asks
//
//     PREPARE b          a voter that has promised nothing higher promises b, and tells what it accepted last
//     ACCEPT  b, value   a voter that has promised nothing higher than b accepts (and promises b)
//
// from a majority each time. The value of ACCEPT is the one accepted under the highest ballot among the promises,
// changed by the caller's compare-and-swap, or unchanged when the comparison fails (then it is only carried to its
// end). A value that a majority accepted under one ballot is *chosen*. Why this is one chain of versions: let v be
// chosen under b. Each later ballot's majority meets one that accepted v under b or something higher, which by
// induction was made from v or what follows it; so every ACCEPT above b carries v or a successor. Two changes of one
// version can be proposed, never both chosen.
//
// What the rules rest on:
// - Promise and acceptance are on disk before they are answered. They lie in two alternating blocks; a torn one leaves
//   the other, which is then what this voter had last answered with. After a failed write nobody knows which of the
//   two is there: the voter falls silent until it is opened again and reads.
// - A voter is the random id made with its store. Its messages carry that id, and who finds no record in its blocks has
//   lost its state and is no voter, whatever its address.
// - A ballot is used by one proposer for one value: (counter, position and 56 random bits of this opening).
// - After ACCEPT was sent and no majority answered, the value may be chosen later by somebody else's round. The next
//   round looks first: what it finds with our stamp is finished; found another with the same version, ours is not
//   chosen and never will be (a majority has promised beyond it); found a later version, nobody can tell any more:
//   ERR_TIMEOUT.
// - Reads ask first without promising (nothing is written): when a majority has accepted the same ballot, that value is
//   chosen, and no later one was chosen before the question, for its majority would have answered too. Else: a whole
//   round that carries the value found to its end.
// - Nothing that is only accepted leaves this file, but for register_hint's addresses.
//
// The voters change. Each value names V, the voters who decide on its successor, and C, those under whom it is chosen
// itself: C of a successor is V of its predecessor. They are the same but where a value adds or removes one voter. A
// round runs on one set X of voters, a majority of which it asks each time. It finds w, and
//
//   C = X, V = X            carries w to its end or makes a successor of it, as above
//   C = X, V is another     carries w to its end, which is all that X can do; a change goes on on V
//   V = X, C is another     if w is known to be chosen: it is the newest value; a change makes a successor of it.
//                           Else: begins again on C
//   neither                 begins again on C: w was proposed, so C has been the set
//
// Why this is still one chain. V and C of a value differ by one voter at most, so each majority of the one meets each of
// the other. A successor on V is proposed only when w, which brought V, is chosen: some of those who choose it have
// accepted w before, and under a lower ballot, or they would refuse; so ballots rise along the chain. Let v be chosen
// on C under ballot b, and look at a later ballot:
//   on C or a neighbour of it    it meets v's majority: finds v or what follows it
//   on an older set              the set after that one has ended, too, by a value chosen under less than b. The two
//                                sets are neighbours, so the later ballot meets that value's majority: finds that value
//                                or what follows it, and nothing that the older set could finish or change
//   on a newer set               it became one by a value that is chosen and follows v
// A set that comes back later counts as another one each time: what decides is the value that is found.
// - A voter answers whoever asks for its store, also if it knows no map that names it: it may be the last to learn that
//   it is one, and a removed one that answers is needed by those who do not know yet, and harmless.
// - One voter for another is two changes. Two at once could leave majorities that do not meet.
// - As long as the value that changes the voters has no successor, who does not know that it is chosen needs a majority
//   of the old ones. So it gets one at once (member.c).
// - A store that is made to replace a lost one has promised and accepted nothing, under ballot 0, and votes only as
//   another store than the lost one. The map that it begins with is good for addresses and as a place to ask.
#include "cluster/register.h"
#include "base/sum.h"

struct ballot { uint64_t counter, node; };
static int ballot_cmp(struct ballot a, struct ballot b) {
    if (a.counter != b.counter) return a.counter < b.counter ? -1 : 1;
    return a.node < b.node ? -1 : a.node > b.node;
}

struct value { // encoded, as it travels and lies on disk
    uint32_t len;
    uint8_t bytes[CLUSTER_MAP_BYTES_MAX];
};

// ---- forms on disk and wire -----------------------------------------------------------------------------------------
struct record { // 0 magic · 4 format · 6 length of the value · 8 CRC32C · 12 0 · 16 promised · 32 accepted · 48 value
    uint8_t magic[4];
    le16 format, value_len;
    le32 sum;
    uint8_t reserved[4];
    le64 promised[2], accepted[2];
};
_Static_assert(sizeof(struct record) == 48 && 48 + CLUSTER_MAP_BYTES_MAX <= REGISTER_RECORD_BYTES_MAX,
               "a record fits a block");
#define RECORD_FORMAT 1
static const uint8_t record_magic[4] = {'M', 'R', 'E', 'G'};

#define PAXOS_QUERY 1u // PREPARE: tell, do not promise
#define PAXOS_YES 2u   // answers: promised, accepted
struct paxos_body {
    struct envelope env;
    uint8_t store[16];  // of the voter that is asked, or that answers
    le64 round;         // of the proposer: answers of older rounds are known by it
    le64 ballot[2];     // asked; in answers: the highest promised
    le64 accepted[2];   // PROMISE
    uint8_t flags, reserved[5];
    le16 value_len;     // PROMISE, ACCEPT, CHOSEN
    uint8_t value[];
};
_Static_assert(sizeof(struct paxos_body) == 88, "a vote on the wire");

static void ballot_put(le64 out[2], struct ballot b) {
    out[0] = le64_of(b.counter);
    out[1] = le64_of(b.node);
}
static struct ballot ballot_at(const le64 in[2]) { return (struct ballot){le64_get(in[0]), le64_get(in[1])}; }

// ---- state ----------------------------------------------------------------------------------------------------------
struct voter { // this node's; what is on disk
    struct ballot promised, accepted;
    struct value value;
};

struct round {
    uint64_t id;
    uint16_t answers;        // the type of message that is waited for; 0: none
    struct map_voters of;    // who is asked
    uint32_t yes, no;        // masks over them
    bool differ;             // the promises name different ballots
    struct ballot best;      // highest accepted
    struct value value;      // of it
    struct waitq q;
};

struct reg {
    struct register_config cfg;
    struct env *env;
    struct voter voter;
    bool broken, closing;    // broken: a write failed; it votes no more
    struct list asked;       // messages for the voter, in order
    struct waitq asked_q, ended_q;
    bool ended;
    struct co_lock proposer; // one round at a time
    uint32_t proposing;
    struct round round;
    uint64_t seen, node;     // highest counter met; own half of the ballot
    struct cluster_map hint, latest, accepted; // accepted: the voter's value, decoded
    bool known;              // latest is valid
    struct map_voters base;  // where the next round begins: the voters of latest, or by whom something newer is chosen
    struct {                 // of the newest promised map: it has these
        struct map_voters set;
        uint64_t version, at_ns; // since that map, and since we know it
    } since;
};

static bool is_ballot(struct ballot b) { return b.counter != 0; } // 0: none

static const struct cluster_map *map_of(const struct reg *r) { return r->known ? &r->latest : &r->hint; }
const struct cluster_map *register_latest(const struct reg *r) { return r->known ? &r->latest : NULL; }
const struct cluster_map *register_hint(const struct reg *r) { return &r->hint; }
const struct cluster_map *register_promised_map(const struct reg *r) {
    if (!is_ballot(r->voter.accepted)) return map_of(r);
    return r->known && r->latest.version >= r->accepted.version ? &r->latest : &r->accepted;
}
bool register_votes(const struct reg *r) {
    return !r->broken && (r->known || is_ballot(r->voter.accepted)) &&
           cluster_map_voter(register_promised_map(r), r->cfg.store) >= 0;
}
uint64_t register_voters_version(const struct reg *r) { return r->since.version; }
uint64_t register_voters_ns(const struct reg *r) { return r->since.at_ns; }

// A newer map is promised: are its voters others? It says so itself if it changes them; maps between it and the one
// before may have been missed.
static void note_voters(struct reg *r) {
    const struct cluster_map *map = register_promised_map(r);
    struct map_voters set = cluster_map_voters(map);
    if (!map->chosen_by.count && map_voters_same(&set, &r->since.set)) return;
    r->since.set = set;
    r->since.version = map->version;
    r->since.at_ns = env_now_ns(r->env);
}
static void see(struct reg *r, struct ballot b) { r->seen = MAX(r->seen, b.counter); }

// ---- the record -----------------------------------------------------------------------------------------------------
static uint32_t record_put(const struct voter *v, uint8_t out[REGISTER_RECORD_BYTES_MAX]) {
    struct record h = {.format = le16_of(RECORD_FORMAT), .value_len = le16_of((uint16_t)v->value.len)};
    memcpy(h.magic, record_magic, 4);
    ballot_put(h.promised, v->promised);
    ballot_put(h.accepted, v->accepted);
    uint32_t len = (uint32_t)sizeof h + v->value.len;
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, v->value.bytes, v->value.len);
    h.sum = le32_of(crc32c(0, out, len));
    memcpy(out, &h, sizeof h);
    return len;
}

static err record_take(struct voter *v, uint8_t *p, uint32_t len) {
    struct record h;
    if (!len) return ERR_NODATA;
    if (len < sizeof h) return ERR_FORMAT;
    memcpy(&h, p, sizeof h);
    if (memcmp(h.magic, record_magic, 4)) return ERR_FORMAT;
    if (le16_get(h.format) != RECORD_FORMAT) return ERR_VERSION;
    v->value.len = le16_get(h.value_len);
    if (len != sizeof h + v->value.len || v->value.len > sizeof v->value.bytes) return ERR_FORMAT;
    memset(p + offsetof(struct record, sum), 0, 4);
    if (crc32c(0, p, len) != le32_get(h.sum)) return ERR_CHECKSUM;
    v->promised = ballot_at(h.promised);
    v->accepted = ballot_at(h.accepted);
    memcpy(v->value.bytes, p + sizeof h, v->value.len);
    return OK;
}

uint32_t register_first_block(const struct cluster_map *first, uint8_t out[REGISTER_RECORD_BYTES_MAX]) {
    struct voter v = {.promised = {1, 0}, .accepted = {1, 0}};
    v.value.len = cluster_map_encode(first, v.value.bytes);
    return record_put(&v, out);
}

uint32_t register_hint_block(const struct cluster_map *known, uint8_t out[REGISTER_RECORD_BYTES_MAX]) {
    struct voter v = {.promised = {0, 0}, .accepted = {0, 0}};
    v.value.len = cluster_map_encode(known, v.value.bytes);
    return record_put(&v, out);
}

// ---- the voter ------------------------------------------------------------------------------------------------------
static void answered(struct reg *r, const struct msg *m);

static struct msg *paxos_msg(struct reg *r, uint16_t type, const struct value *v) {
    uint32_t len = v ? v->len : 0;
    struct msg *m = hub_msg(r->cfg.hub, type, (uint32_t)sizeof(struct paxos_body) + len);
    struct paxos_body *b = (struct paxos_body *)m->body;
    b->value_len = le16_of((uint16_t)len);
    if (len) memcpy(b->value, v->bytes, len);
    return m;
}

static void send_to(struct reg *r, uint8_t iom, struct msg *m) {
    const struct cluster_map *map = map_of(r);
    if (iom == r->cfg.iom) {
        answered(r, m);
        msg_free(m);
    } else if (iom < map->ioms) {
        hub_cast(hub_peer(r->cfg.hub, (iom_id){iom}, map->iom[iom].at), m);
    } else {
        msg_free(m);
    }
}

static err co_harden(struct reg *r, const struct voter *v) {
    uint8_t *p = mem_alloc(r->env->mem, REGISTER_RECORD_BYTES_MAX);
    err e = r->cfg.storage.co_write(r->cfg.storage.ctx, p, record_put(v, p));
    mem_free(r->env->mem, p);
    if (e == OK) return OK;
    LOG(r->env, TRACE_ERROR,
        "the register's blocks cannot be written (%s): this store votes no more until it is opened again", err_text(e));
    r->broken = true;
    return e;
}

static err co_promise(struct reg *r, const struct paxos_body *b, bool *yes) {
    struct ballot asked = ballot_at(b->ballot);
    *yes = true;
    if (b->flags & PAXOS_QUERY) return OK;
    *yes = ballot_cmp(asked, r->voter.promised) >= 0;
    if (!*yes || !ballot_cmp(asked, r->voter.promised)) return OK;
    struct voter next = r->voter;
    next.promised = asked;
#ifndef MENDFS_MUTANT_PROMISE_NOT_FLUSHED
    err e = co_harden(r, &next);
    if (e != OK) return e;
#endif
    r->voter = next;
    return OK;
}

static err co_accept(struct reg *r, const struct paxos_body *b, bool *yes) {
    struct ballot asked = ballot_at(b->ballot);
#ifdef MENDFS_MUTANT_ACCEPT_LOWER
    *yes = true;
#else
    *yes = ballot_cmp(asked, r->voter.promised) >= 0;
#endif
    if (!*yes || !ballot_cmp(asked, r->voter.accepted)) return OK; // refused, or done already
    struct voter next = {.promised = asked, .accepted = asked};
    next.value.len = le16_get(b->value_len);
    memcpy(next.value.bytes, b->value, next.value.len);
    err e = co_harden(r, &next);
    if (e != OK) return e;
    r->voter = next;
    struct cluster_map m;
    if (cluster_map_decode(&m, next.value.bytes, next.value.len, NULL) == OK) r->accepted = m;
    note_voters(r);
    return OK;
}

static void co_vote(struct reg *r, struct msg *m, uint8_t from) {
    const struct paxos_body *b = (const struct paxos_body *)m->body;
    bool yes, prepare = m->type == MSG_PAXOS_PREPARE;
    err e = prepare ? co_promise(r, b, &yes) : co_accept(r, b, &yes);
    if (e != OK || r->closing) return;
    see(r, r->voter.promised);
    bool tells = prepare && yes && is_ballot(r->voter.accepted);
    struct msg *a = paxos_msg(r, prepare ? MSG_PAXOS_PROMISE : MSG_PAXOS_ACCEPTED, tells ? &r->voter.value : NULL);
    struct paxos_body *ab = (struct paxos_body *)a->body;
    memcpy(ab->store, r->cfg.store, 16);
    ab->round = b->round;
    ballot_put(ab->ballot, r->voter.promised);
    ballot_put(ab->accepted, r->voter.accepted);
    ab->flags = yes ? PAXOS_YES : 0;
    send_to(r, from, a);
}

// Votes come one after the other: what one wrote is there before the next is looked at.
static void voter_main(void *arg) {
    struct reg *r = arg;
    while (!r->closing) {
        if (list_empty(&r->asked)) {
            co_wait(r->env, &r->asked_q, "a question to the voter");
            continue;
        }
        struct msg *m = LIST_ENTRY(list_pop_front(&r->asked), struct msg, node);
        if (!r->broken) co_vote(r, m, (uint8_t)m->flags); // flags: who asked
        msg_free(m);
    }
    r->ended = true;
    waitq_wake_all(r->env, &r->ended_q);
}

#define ASKED_MAX 64u // more wait only if the disk hangs; who asked asks again

static void ask_voter(struct reg *r, uint8_t from, struct msg *m) {
    const struct paxos_body *b = (const struct paxos_body *)m->body;
    uint32_t waiting = 0;
    LIST_FOR(&r->asked, n) waiting++;
    if (r->broken || waiting >= ASKED_MAX || memcmp(b->store, r->cfg.store, 16)) {
        msg_free(m);
        return;
    }
    m->flags = from;
    list_push_back(&r->asked, &m->node);
    waitq_wake_one(r->env, &r->asked_q);
}

// ---- the proposer ---------------------------------------------------------------------------------------------------
static uint32_t count(uint32_t mask) { return (uint32_t)__builtin_popcount(mask); }

static void take_promise(struct round *o, const struct paxos_body *b) {
    struct ballot acc = ballot_at(b->accepted);
    int c = ballot_cmp(acc, o->best);
    if (o->yes && c) o->differ = true;
    if (c <= 0) return; // also who has accepted nothing
    o->best = acc;
    o->value.len = le16_get(b->value_len);
    memcpy(o->value.bytes, b->value, o->value.len);
}

static void answered(struct reg *r, const struct msg *m) {
    const struct paxos_body *b = (const struct paxos_body *)m->body;
    struct round *o = &r->round;
    int i = map_voters_find(&o->of, b->store);
    see(r, ballot_at(b->ballot));
    if (m->type != o->answers || le64_get(b->round) != o->id || i < 0 || ((o->yes | o->no) & 1u << i)) return;
    if (!(b->flags & PAXOS_YES)) {
        o->no |= 1u << i;
    } else {
        if (m->type == MSG_PAXOS_PROMISE) take_promise(o, b);
        o->yes |= 1u << i;
    }
    waitq_wake_all(r->env, &o->q);
}

static void ask_all(struct reg *r, uint16_t type, uint8_t flags, struct ballot ballot, const struct value *v) {
    for (uint8_t i = 0; i < r->round.of.count; i++) {
        if ((r->round.yes | r->round.no) & 1u << i) continue;
        struct msg *m = paxos_msg(r, type, v);
        struct paxos_body *b = (struct paxos_body *)m->body;
        memcpy(b->store, r->round.of.at[i].store, 16);
        b->round = le64_of(r->round.id);
        b->flags = flags;
        ballot_put(b->ballot, ballot);
        uint8_t iom = r->round.of.at[i].iom;
        if (iom == r->cfg.iom) ask_voter(r, iom, m);
        else send_to(r, iom, m);
    }
}

// Asks all of these voters until a majority has said yes (OK), can no longer (ERR_CONFLICT), or the time is over
// (ERR_TIMEOUT).
static err co_ask(struct reg *r, const struct map_voters *of, uint16_t type, uint8_t flags, struct ballot ballot,
                  const struct value *v, uint64_t deadline_ns) {
    _Static_assert(MSG_PAXOS_PROMISE == MSG_PAXOS_PREPARE + 1 && MSG_PAXOS_ACCEPTED == MSG_PAXOS_ACCEPT + 1,
                   "question, answer");
    struct round *o = &r->round;
    uint64_t phase_ns = r->cfg.phase_ns, end_ns = MIN(deadline_ns, env_now_ns(r->env) + phase_ns);
    *o = (struct round){.id = env_random(r->env), .answers = type + 1, .of = *of};
    waitq_init(&o->q);
    err e = ERR_TIMEOUT;
    uint64_t now = env_now_ns(r->env), again_ns = now;
    while (!r->closing && (now = env_now_ns(r->env)) < end_ns) {
        uint32_t majority = map_voters_majority(of);
        if (count(o->yes) >= majority) e = OK;
        else if (count(o->no) > of->count - majority) e = ERR_CONFLICT;
        if (e != ERR_TIMEOUT) break;
        if (now >= again_ns) {
            ask_all(r, type, flags, ballot, v);
            again_ns = now + phase_ns / 5;
        }
        (void)co_wait_until(r->env, &o->q, MIN(again_ns, end_ns), "votes of the register");
    }
    o->answers = 0;
    return e;
}

static void tell_all(struct reg *r) {
    for (uint8_t i = 0; i < r->latest.ioms; i++)
        if (i != r->cfg.iom) register_tell(r, i);
}

// What a round on the voters x may do with the value that it found (the table at the top).
enum found {
    FOUND_HERE,      // chosen, or to be, by x
    FOUND_BEFORE,    // chosen before x, and x decides on its successor
    FOUND_ELSEWHERE, // the round begins again, on r->base
};

static bool known_chosen(const struct reg *r, const struct cluster_map *w) {
    return r->known && w->version == r->latest.version && w->stamp == r->latest.stamp;
}

static enum found judge_found(struct reg *r, const struct map_voters *x, const struct cluster_map *w) {
    struct map_voters choosers = cluster_map_choosers(w), voters = cluster_map_voters(w);
#ifdef MENDFS_MUTANT_NO_NEW_BEGINNING
    return FOUND_HERE;
#endif
    if (map_voters_same(&choosers, x)) return FOUND_HERE;
    if (map_voters_same(&voters, x) && known_chosen(r, w)) return FOUND_BEFORE;
    // What is no newer than what we have learned meanwhile leads nowhere else.
    r->base = r->known && w->version <= r->latest.version ? cluster_map_voters(&r->latest) : choosers;
    return FOUND_ELSEWHERE;
}

static err decode_found(const struct reg *r, struct cluster_map *w) {
    if (!r->round.value.len) return ERR_CONFLICT; // none of them has accepted anything
    return cluster_map_decode(w, r->round.value.bytes, r->round.value.len, NULL);
}

// One whole round: promises, then acceptances of what `change` makes of the value found, if that value's voters are
// those who are asked. *chosen: what is now chosen, or was and is the newest. *again: begin again at once, elsewhere.
static err co_round(struct reg *r, bool (*change)(void *arg, struct cluster_map *m), void *arg, uint64_t deadline_ns,
                    struct cluster_map *chosen, bool *again) {
    struct ballot b = {++r->seen, r->node};
    struct map_voters x = r->base, voters;
    err e = co_ask(r, &x, MSG_PAXOS_PREPARE, 0, b, NULL, deadline_ns);
    if (e == OK) e = decode_found(r, chosen);
    if (e != OK) return e;
    struct value v = r->round.value;
    enum found found = judge_found(r, &x, chosen);
    if (found == FOUND_ELSEWHERE) {
        *again = !map_voters_same(&r->base, &x);
        return ERR_CONFLICT;
    }
    voters = cluster_map_voters(chosen);
    if (map_voters_same(&voters, &x) && change(arg, chosen)) v.len = cluster_map_encode(chosen, v.bytes);
    else if (found == FOUND_BEFORE) return OK;
#ifdef MENDFS_MUTANT_CHOSEN_BY_NEW
    x = cluster_map_choosers(chosen);
#endif
    return co_ask(r, &x, MSG_PAXOS_ACCEPT, 0, b, &v, deadline_ns);
}

static void co_back_off(struct reg *r, uint32_t attempt, uint64_t deadline_ns) {
    uint64_t limit = MSEC(8) << MIN(attempt, 5u);
    uint64_t until = env_now_ns(r->env) + MSEC(2) + env_random(r->env) % limit;
    co_sleep_until(r->env, MIN(until, deadline_ns), "another proposer goes first");
}

static void newly_chosen(struct reg *r, const struct cluster_map *m) {
    bool news = !r->known || m->version > r->latest.version;
    register_learn(r, m);
    if (news) tell_all(r);
}

static void propose_begin(struct reg *r, const char *label) {
    r->proposing++;
    co_lock(r->env, &r->proposer, label);
}

static void propose_end(struct reg *r) {
    co_unlock(r->env, &r->proposer);
    if (!--r->proposing && r->closing) waitq_wake_all(r->env, &r->ended_q);
}

// ---- reading --------------------------------------------------------------------------------------------------------
static bool no_change(void *arg, struct cluster_map *m) { return false; }

// Without promises: have all accepted one value, and is it chosen by that?
static err co_query(struct reg *r, uint64_t deadline_ns, struct cluster_map *out, bool *again) {
    struct map_voters x = r->base;
    err e = co_ask(r, &x, MSG_PAXOS_PREPARE, PAXOS_QUERY, (struct ballot){0}, NULL, deadline_ns);
    if (e != OK) return e;
    if (r->round.differ) return ERR_CONFLICT;
    e = decode_found(r, out);
    if (e != OK) return e;
    if (judge_found(r, &x, out) != FOUND_ELSEWHERE) return OK;
    *again = !map_voters_same(&r->base, &x);
    return ERR_CONFLICT;
}

static err co_read_once(struct reg *r, uint64_t deadline_ns, struct cluster_map *out, bool *again) {
    err e = co_query(r, deadline_ns, out, again);
    if (e == OK) {
        register_learn(r, out);
        return OK;
    }
    if (e != ERR_CONFLICT || *again) return e;
    e = co_round(r, no_change, NULL, deadline_ns, out, again);
    if (e == OK) newly_chosen(r, out);
    return e;
}

err co_register_read(struct reg *r, uint64_t deadline_ns, struct cluster_map *out) {
    propose_begin(r, "reading the register");
    err e = ERR_TIMEOUT;
    for (uint32_t attempt = 0; !r->closing && env_now_ns(r->env) < deadline_ns; attempt++) {
        bool again = false;
        e = co_read_once(r, deadline_ns, out, &again);
        if (e == OK) break;
        if (!again) co_back_off(r, attempt, deadline_ns);
        e = ERR_TIMEOUT;
    }
    if (r->closing && e != OK) e = ERR_CONN;
    propose_end(r);
    return e;
}

// ---- compare and swap -----------------------------------------------------------------------------------------------
struct change {
    const struct cluster_map *next;
    uint64_t expected, stamp;
    bool proposed;   // some ACCEPT with it was sent, perhaps
    bool foreign;    // more than one voter would change
};

// The successor of m is decided on by m's voters.
static bool swap(void *arg, struct cluster_map *m) {
    struct change *c = arg;
    if (m->version != c->expected) return false;
    struct map_voters now = cluster_map_voters(m), then = cluster_map_voters(c->next);
    bool same = map_voters_same(&now, &then);
    c->foreign = !same && !map_voters_one_apart(&now, &then);
    if (c->foreign) return false;
    *m = *c->next;
    m->version = c->expected + 1;
    m->stamp = c->stamp;
    m->chosen_by = same ? (struct map_voters){0} : now;
#ifdef MENDFS_MUTANT_CHOSEN_BY_NEW
    m->chosen_by = (struct map_voters){0};
#endif
    c->proposed = true;
    return true;
}

// What the value that is chosen now says about our change.
static err judge_change(const struct change *c, const struct cluster_map *m) {
    if (c->foreign) return ERR_INVAL;
    if (m->version == c->expected + 1 && m->stamp == c->stamp) return OK;
    return c->proposed && m->version > c->expected + 1 ? ERR_TIMEOUT : ERR_CONFLICT;
}

// OK: *e is what became of the change. A value that changed the voters, finished only now, is not looked at for long:
// its own voters have not been asked for our change.
static err co_swap_once(struct reg *r, struct change *c, uint64_t deadline_ns, bool *again, err *e) {
    struct cluster_map chosen;
    err r1 = co_round(r, swap, c, deadline_ns, &chosen, again);
    if (r1 != OK) return r1;
    newly_chosen(r, &chosen);
    *again = chosen.version == c->expected && !c->foreign;
    *e = judge_change(c, &chosen);
    return *again ? ERR_CONFLICT : OK;
}

err co_register_cas(struct reg *r, uint64_t expected, const struct cluster_map *next, uint64_t deadline_ns) {
    struct cluster_map wanted = *next; // on the coroutine's stack: the caller's may change meanwhile
    struct change c = {.next = &wanted, .expected = expected, .stamp = env_random(r->env)};
    propose_begin(r, "changing the register");
    err e = ERR_TIMEOUT;
    for (uint32_t attempt = 0; !r->closing && env_now_ns(r->env) < deadline_ns; attempt++) {
        bool again = false;
        if (co_swap_once(r, &c, deadline_ns, &again, &e) == OK) break;
        if (!again) co_back_off(r, attempt, deadline_ns);
        e = ERR_TIMEOUT;
    }
    if (r->closing && e != OK) e = ERR_CONN;
    propose_end(r);
    return e;
}

// ---- what is known --------------------------------------------------------------------------------------------------
void register_learn(struct reg *r, const struct cluster_map *m) {
    if (memcmp(m->cluster, r->cfg.cluster, 16) || (r->known && m->version <= r->latest.version)) return;
    r->latest = *m;
    r->known = true;
    r->base = cluster_map_voters(m);
    note_voters(r);
    if (r->cfg.chosen && !r->closing) r->cfg.chosen(r->cfg.ctx, &r->latest);
}

void register_subscribe(struct reg *r, void (*chosen)(void *ctx, const struct cluster_map *m), void *ctx) {
    r->cfg.chosen = chosen;
    r->cfg.ctx = ctx;
}

void register_tell(struct reg *r, uint8_t iom) {
    if (!r->known) return;
    struct value v;
    v.len = cluster_map_encode(&r->latest, v.bytes);
    send_to(r, iom, paxos_msg(r, MSG_PAXOS_CHOSEN, &v));
}

static void told(struct reg *r, const struct paxos_body *b) {
    struct cluster_map m;
    const char *why;
    if (cluster_map_decode(&m, b->value, le16_get(b->value_len), &why) == OK) register_learn(r, &m);
    else LOG(r->env, TRACE_WARN, "someone sent a map that is none: %s", why);
}

static bool message_sound(const struct msg *m) {
    const struct paxos_body *b = (const struct paxos_body *)m->body;
    return m->body_len >= sizeof *b && m->body_len == sizeof *b + le16_get(b->value_len) &&
           le16_get(b->value_len) <= CLUSTER_MAP_BYTES_MAX;
}

void register_cast(struct reg *r, const struct node_name *from, struct msg *m) {
    if (r->closing || from->kind != NODE_IOM || !message_sound(m)) {
        msg_free(m);
        return;
    }
    switch (m->type) {
    case MSG_PAXOS_PREPARE:
    case MSG_PAXOS_ACCEPT: ask_voter(r, from->iom, m); return;
    case MSG_PAXOS_PROMISE:
    case MSG_PAXOS_ACCEPTED: answered(r, m); break;
    case MSG_PAXOS_CHOSEN: told(r, (const struct paxos_body *)m->body); break;
    }
    msg_free(m);
}

// ---- opening and closing --------------------------------------------------------------------------------------------
static err co_blocks_load(struct env *env, const struct register_storage *s, struct voter *v, struct cluster_map *map) {
    uint8_t *p = mem_alloc(env->mem, REGISTER_RECORD_BYTES_MAX);
    uint32_t len = 0;
    err e = s->co_read(s->ctx, p, &len);
    if (e == OK) e = record_take(v, p, len);
    mem_free(env->mem, p);
    return e == OK ? cluster_map_decode(map, v->value.bytes, v->value.len, NULL) : e;
}

err co_register_peek(struct env *env, const struct register_storage *s, struct cluster_map *out) {
    struct voter *v = mem_alloc(env->mem, sizeof *v);
    err e = co_blocks_load(env, s, v, out);
    mem_free(env->mem, v);
    return e;
}

static err co_load(struct reg *r) {
    err e = co_blocks_load(r->env, &r->cfg.storage, &r->voter, &r->hint);
    r->accepted = r->hint;
    if (e == OK && memcmp(r->hint.cluster, r->cfg.cluster, 16)) e = ERR_CLUSTER;
    return e;
}

err co_register_open(const struct register_config *c, struct reg **out) {
    struct reg *r = mem_alloc(c->env->mem, sizeof *r);
    r->cfg = *c;
    r->env = c->env;
    if (!r->cfg.phase_ns) r->cfg.phase_ns = MSEC(400);
    list_init(&r->asked);
    waitq_init(&r->asked_q);
    waitq_init(&r->ended_q);
    waitq_init(&r->round.q);
    co_lock_init(&r->proposer);
    r->node = (uint64_t)c->iom << 56 | env_random(r->env) >> 8;
    err e = co_load(r);
    if (e != OK) {
        mem_free(c->env->mem, r);
        return e;
    }
    see(r, r->voter.promised);
    r->base = cluster_map_choosers(&r->hint);
    note_voters(r);
    env_spawn(r->env, "voter", voter_main, r);
    *out = r;
    return OK;
}

void co_register_close(struct reg *r) {
    r->closing = true;
    waitq_wake_all(r->env, &r->asked_q);
    waitq_wake_all(r->env, &r->round.q);
    while (!r->ended || r->proposing) co_wait(r->env, &r->ended_q, "the register's tasks to end");
    for (struct list *n; (n = list_pop_front(&r->asked));) msg_free(LIST_ENTRY(n, struct msg, node));
    mem_free(r->env->mem, r);
}
