// Nodes and what they say to each other. One *hub* a node: it listens, connects, greets, and carries three kinds of traffic:
//
//   call   request -> reply            MX -> IOM, IOM -> IOM; fails with ERR_CONN/... and the caller asks again (same slot)
//   post   numbered one-way stream     IOM -> IOM; in order, exactly once between two incarnations within one epoch; what a broken
//                                      connection lost is sent again after the next greeting
//   cast   best effort                 heartbeats, votes; on a connection of their own, never behind data
//
// Every node opens its own connections to whom it talks (one for data, one for casts); replies come back on them. A connection begins
// with HELLO from the connecting and WELCOME from the accepting side (cluster, version, who, incarnation, epoch, next post expected).
// Every body of call/reply/post/cast starts with struct envelope. Epochs: a call of another epoch than the hub's is answered ERR_EPOCH (unless its
// type is marked any-epoch); a post of an older epoch is dropped, of a newer one closes the connection (it comes again later); casts are not checked.
#pragma once
#include "base/bytes.h"
#include "base/err.h"
#include "env/env.h"
#include "layout/layout.h"

#define WIRE_VERSION 1

enum node_kind { NODE_IOM = 1, NODE_MX = 2, NODE_TOOL = 3 };
struct node_name {
    enum node_kind kind;
    uint8_t iom;          // position, for IOMs
    uint8_t id[16];       // store id of an IOM; session id of an MX; random for tools
    uint64_t incarnation; // IOMs
};

struct envelope {         // 24 bytes at the head of every body after the greeting
    le64 epoch;
    le64 seq;             // call: xid, echoed in the reply; post: its number; cast: 0
    le32 result;          // replies: enum err
    le32 reserved;
};

struct hub;
struct peer;
struct inbound {          // one call that came in; lives until hub_reply or hub_drop
    struct hub *hub;
    struct node_name from;
    struct msg *m;        // body starts with the envelope
    uint64_t xid, epoch;
    struct conn *conn;    // NULL once the caller's connection is gone (hub_reply then just frees)
    struct list node;
};
struct hub_events {
    void (*call)(void *ctx, struct inbound *in);                                       // owns in; usually spawns a task; answer with hub_reply
    void (*post)(void *ctx, iom_id from, struct msg *m);                               // owns m; in order; must not wait
    void (*cast)(void *ctx, const struct node_name *from, struct msg *m);              // owns m; must not wait
    void (*gone)(void *ctx, const struct node_name *who);                              // an accepted data connection closed (MXs, tools, IOMs)
    bool (*any_epoch)(void *ctx, uint16_t type);                                       // calls that are taken in every epoch (map, status, recovery)
    void *ctx;
};
struct hub_config {
    uint8_t cluster[16];
    struct node_name self;
    struct hub_events events;
};
struct hub *hub_create(struct env *e, const struct hub_config *c);
MUST_USE err hub_listen(struct hub *h, const char *at);
void hub_destroy(struct hub *h);                       // closes everything; pending calls of this node fail with ERR_CONN
void hub_set_epoch(struct hub *h, uint64_t epoch);     // when it changes: post streams are reset (numbers start again, unsent posts are dropped), calls that
                                                       // were sent end with ERR_CONN
uint64_t hub_epoch(const struct hub *h);
void hub_set_incarnation(struct hub *h, uint64_t incarnation); // greets anew: closes own connections

// Who asks for deaths is told of them at once: when a connection from or to an IOM ends, the connection for casts is made again out of turn, and if it is refused in a
// way that proves that nobody is there (struct conn, `nobody`), the incarnation that was known when the attempt began is dead. A newer one may live already.
// Casts of the few milliseconds that this takes are kept for it.
struct hub_deaths {
    uint64_t (*known)(void *ctx, uint8_t iom);                   // the newest incarnation that can have listened by now; 0: none
    void (*dead)(void *ctx, uint8_t iom, uint64_t incarnation);  // its process is gone
    void (*met)(void *ctx, uint8_t iom);                         // casts reach it from now on; of those made before, the few of the last milliseconds
    void *ctx;
};
void hub_tell_deaths(struct hub *h, const struct hub_deaths *d);   // NULL: no more

// A remote IOM; connects when first used and again (with backoff, 5..200 ms) whenever it is lost and something waits to be sent.
struct peer *hub_peer(struct hub *h, iom_id iom, const char *at);  // made once per iom and kept; `at` may change later
// From now on somebody else at `at` answers for that IOM: calls and posts go there, casts still to itself. NULL: itself again. After hub_peer.
void hub_redirect(struct hub *h, iom_id iom, const char *at);
struct peer *hub_peer_at(struct hub *h, const char *at);           // a tool that does not know whom it will meet
bool peer_connected(const struct peer *p);
struct msg *hub_msg(struct hub *h, uint16_t type, uint32_t body_len); // body_len includes the envelope

// Sends and waits. Owns req. The reply belongs to the caller (*reply is NULL on error). Result: the transport's error, or the reply's envelope
// result. deadline_ns (monotonic) 0 = none. ERR_CONN: lost, perhaps done, perhaps not. ERR_REFUSED: nobody there. ERR_RESTARTED: another incarnation answered the
// greeting than the one that had the call. `cancel` (may be NULL): another task may wake this queue to give up (ERR_INTR).
struct call_opts { uint64_t deadline_ns; bool *cancelled; struct waitq *cancel; };
MUST_USE err co_call(struct peer *p, struct msg *req, const struct call_opts *o, struct msg **reply);
void hub_post(struct peer *p, struct msg *m);          // owns m; never waits. Loopback to oneself is not offered: callers shortcut
uint64_t peer_post_backlog_bytes(const struct peer *p);
void hub_cast(struct peer *p, struct msg *m);          // owns m; dropped if not connected (but connects; see hub_deaths)
struct msg *inbound_reply(struct inbound *in, uint32_t body_len); // a reply message to fill (type = request's | MSG_REPLY)
void hub_drop(struct inbound *in);                                   // no answer: the caller's connection stays, its call waits on
void hub_reply(struct inbound *in, struct msg *reply, err result); // owns both; reply NULL = envelope alone
