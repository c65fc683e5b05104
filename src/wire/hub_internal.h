// What the files of the hub share: hub.c (connections, the accepting side), greet.c (the greeting), peer.c (the
// connecting side, calls), post.c (numbered streams). Nobody else includes this.
//
//     hub ── peer ── path data ── link ── conn        ours: calls and posts go out, replies and acks come back
//      │       └──── path cast ── link ── conn        ours: casts go out
//      └── accepted links ── conn                     theirs: HELLO decides which of the two kinds it is
//
// A link lives as long as its connection. link_end is the only way out, whoever closes.
#pragma once
#include "base/map.h"
#include "wire/format.h"
#include "wire/peer.h"

enum link_role { LINK_DATA = 1, LINK_CAST = 2 };

// HELLO, WELCOME and REFUSE have one body.
//   0 magic · 4 version · 6 role · 7 kind · 8 iom · 9 expected iom · 10 reserved · 12 result · 16 cluster · 32 id
//   48 incarnation · 56 epoch · 64 next post (WELCOME)
#define GREETING_MAGIC 0x31524748u // "HGR1"
struct greeting {
    le32 magic;
    le16 version;
    uint8_t role, kind;
    uint8_t iom, expect_iom, reserved[2];
    le32 result;               // REFUSE: enum err
    uint8_t cluster[16], id[16];
    le64 incarnation, epoch;
    le64 next_post;            // of the stream from the connecting IOM in `epoch`
};
_Static_assert(sizeof(struct greeting) == 72, "the greeting on the wire");

struct path;
struct link {
    struct list node;          // in hub->accepted
    struct hub *hub;
    struct conn *conn;
    struct path *path;         // ours; NULL: accepted
    enum link_role role;
    bool greeted, refused, replaced;
    struct node_name who;      // valid once greeted
    struct list inbounds;      // calls that came here and are not answered
    struct timer greeting;     // closes what does not greet in time
};

struct path {
    struct peer *peer;
    enum link_role role;
    struct link *link;         // NULL: not connected
    struct timer retry;
    uint64_t not_before_ns;    // no attempt before this
    uint32_t backoff_ms;       // 0: the last attempt went well
    // Looking for a death, on the path of casts:
    uint64_t sought;           // the incarnation that this attempt will have proven dead if nobody is there
    uint64_t looked_ns;        // since when we look
    uint32_t looks_left;       // attempts out of turn that are still to be made
    struct list kept;          // casts for when it is made again
    uint32_t kept_len;
    uint64_t kept_ns;          // since when
};

// Posts to one IOM. unsent: waiting for a connection to an incarnation that is in our epoch; unacked: sent, kept until
// the other side has told that it has them.
struct stream_out {
    struct list unacked, unsent;
    uint64_t next;             // number of the next post
    uint64_t backlog_bytes;
    uint64_t bound;            // the incarnation that has adopted our epoch; 0: not known yet
    uint64_t remote_epoch;     // as told on the present connection; 0: nothing told
    bool broken;               // cannot be resumed in this epoch
};
// Posts from one IOM. Belongs to the first store and incarnation that posts in the epoch.
struct stream_in {
    struct hub *hub;
    uint8_t iom;
    uint8_t id[16];
    uint64_t incarnation;      // 0: nobody yet
    uint64_t next;             // the number expected
    uint32_t untold;           // received since the last ack
    struct timer ack;
    struct link *link;         // where they come in; NULL: lost
};

struct peer {
    struct list node;
    struct hub *hub;
    uint8_t iom;               // NO_IOM: a tool's
    char *at;                  // of the process itself: casts go there
    char *served_at;           // who answers for it: calls and posts go there; NULL: itself
    struct path data, cast;
    struct list waiting;       // calls not sent yet
    struct map sent;           // xid -> struct call
    uint64_t known;            // the incarnation that greeted last; 0: none
    err refusal;               // the last one told to the log
    struct stream_out out;
};

#define HUB_LISTENERS_MAX 4
struct hub {
    struct env *env;
    struct hub_config cfg;
    uint64_t epoch, xid;
    struct listener *listeners[HUB_LISTENERS_MAX];
    uint32_t listeners_len;
    struct list accepted;      // links
    struct list peers;
    struct peer *by_iom[ARRAY_IOMS_MAX];
    struct stream_in in[ARRAY_IOMS_MAX];
    struct { uint8_t id[16]; err cause; uint64_t until_ns; } told; // the last refusal in the log
    struct hub_deaths deaths;
};

static inline struct envelope *msg_envelope(struct msg *m) { return (struct envelope *)m->body; }

// hub.c
struct link *link_new(struct hub *h, struct path *path, enum link_role role);
void link_end(struct link *l, err why, bool close);
void link_message(struct conn *c, struct msg *m);
void link_closed(struct conn *c, err why);

// peer.c
void peer_overtaken(struct peer *p); // the epoch in which its calls were sent is over: they end with ERR_CONN

// greet.c
#define GREETING_LIMIT_NS SEC(3)
struct msg *greeting_make(struct hub *h, uint16_t type, enum link_role role, uint8_t expect_iom);
void greet_hello(struct link *l, struct msg *m);  // accepted: someone says HELLO
void greet_answer(struct link *l, struct msg *m); // ours: WELCOME or REFUSE

// peer.c
void path_init(struct path *p, struct peer *peer, enum link_role role);
void path_want(struct path *p);
void path_lost(struct path *p, bool greeted, err why);
void peer_welcomed(struct peer *p, const struct greeting *g);
void peer_reply(struct peer *p, struct msg *m);
// This incarnation of an IOM greets: what of our connections leads to an earlier one leads nowhere.
void peer_alive(struct peer *p, const uint8_t id[16], uint64_t incarnation);
void peer_free(struct peer *p);
void path_send_kept(struct path *p); // it is open
void peer_look(struct peer *p);      // a connection of it to us ended: is it still there?
void peer_met(struct peer *p);       // casts reach it
void peer_is_nobody(struct peer *p); // the attempt to send it casts was refused by its dead process' socket

// post.c
void stream_out_init(struct stream_out *s);
void stream_out_reset(struct peer *p);                              // forgets everything: a new epoch or incarnation
void stream_out_welcomed(struct peer *p, const struct greeting *g);
void stream_out_lost(struct peer *p);
void stream_out_told(struct peer *p, struct msg *ack);
bool stream_out_waits(const struct peer *p);
void stream_in_reset(struct hub *h, uint8_t iom);
uint64_t stream_in_next(struct hub *h, const struct greeting *hello);
void stream_in_post(struct link *l, struct msg *m);
void stream_tell_epoch(struct link *l);                             // to who is connected to us
