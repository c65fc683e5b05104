// Connections: messages, framed, over non-blocking Unix and TCP sockets.
//
//   CONNECTING --opened--> OPEN --closed(why)--> ENDED        conn_close: any --(no event)--> ENDED
//
// Sending: messages wait in the queue; at the end of a slice of tasks one sendmsg takes as many as it can, header, body
// and payload from where they lie. Headers are made when a message first comes into a batch, and kept until it is gone.
// Receiving: into the loop's one buffer (always warm) when headers and bodies are awaited; the rest of a payload goes
// straight to its own pages by readv, the buffer takes what follows it. While large payloads come, little of the buffer
// is offered, so that the next payload does not pass through it. What is left of an unfinished header or body, less
// than FRAME_SMALL_MAX, is kept with the connection.
//
// The peer is not trusted to be one of ours: anything but a valid message ends the connection with ERR_FORMAT and one
// line in the log. There are at most conns_max accepted connections; when one more comes, the oldest that has not yet
// said a valid message goes, and if all have, the new one.
#include "host/host.h"
#include "wire/frame.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define BATCH_MSGS 32u
#define BATCH_BYTES KIB(256)        // a batch ends with the message that reaches this
#define BATCHES_PER_TURN 16         // of one connection, so that the others have theirs
#define READS_PER_TURN 4
#define LARGE_PAYLOAD KIB(16)       // from here on a payload is worth a read of its own
#define LARGE_READ_BYTES KIB(4)     // what is offered of the buffer then
#define UNIX_SEND_BYTES (2 << 20)   // room for a large message in one call

enum conn_state { CONN_CONNECTING, CONN_OPEN, CONN_ENDED };

struct host_conn {
    struct conn conn;
    struct loop *loop;
    enum conn_state state;
    int fd;                // -1: connecting failed
    bool is_unix;
    err pending_why;       // in loop.conns_pending: OK = opened, else closed with it
    char *at;              // for the log: what was connected to
    struct list node;      // loop.conns
    struct list silent;    // loop.conns_silent
    struct list pending;   // loop.conns_pending
    struct list to_send;   // loop.conns_to_send
    struct watch watch;
    struct grave grave;

    struct list queue;     // of messages; front_sent bytes of the first frame are gone
    uint64_t queued_bytes, front_sent;
    struct frame_header heads[BATCH_MSGS]; // of the first heads_len messages, a ring from heads_first
    uint32_t heads_first, heads_len;

    uint8_t *left;         // FRAME_SMALL_MAX bytes, once needed
    uint32_t left_len;
    struct msg *in;        // its payload is on the way, in_got bytes are there
    struct frame in_frame;
    uint32_t in_got;
    bool in_large;         // the last payload was
};

static struct host_conn *host_conn_of(const struct conn *c) { return CONTAINER_OF(c, struct host_conn, conn); }

static uint64_t frame_bytes(const struct msg *m) {
    return FRAME_HEADER_BYTES + (uint64_t)m->body_len + m->payload.len_bytes;
}

static err why_of(int eno) {
    switch (eno) {
    case ECONNREFUSED:
    case ENOENT:
    case EAGAIN: // a Unix listener with a full backlog
        return ERR_REFUSED;
    case ETIMEDOUT: return ERR_TIMEOUT;
    case ENAMETOOLONG: return ERR_NAMETOOLONG;
    case EACCES: return ERR_ACCES;
    default: return ERR_CONN;
    }
}

// ---- ending ---------------------------------------------------------------------------------------------------------
static void drop_queue(struct host_conn *hc) {
    for (struct list *n; (n = list_pop_front(&hc->queue));) msg_free(LIST_ENTRY(n, struct msg, node));
    hc->queued_bytes = hc->front_sent = 0;
    hc->heads_len = 0;
}

static void detach(struct host_conn *hc) {
    struct loop *l = hc->loop;
    hc->state = CONN_ENDED;
    watch_remove(&hc->watch);
    if (hc->fd >= 0) {
        close(hc->fd);
        l->count.syscalls++;
    }
    if (hc->conn.accepted) l->conns_len--;
    list_remove(&hc->node);
    list_remove(&hc->silent);
    list_remove(&hc->pending);
    list_remove(&hc->to_send);
    drop_queue(hc);
    msg_free(hc->in);
    hc->in = NULL;
    mem_free(l->env.mem, hc->left);
    mem_free(l->env.mem, hc->at);
    loop_bury(l, &hc->grave, hc);
}

static void conn_end(struct host_conn *hc, err why) {
    detach(hc);
    hc->conn.events->closed(&hc->conn, why);
}

static void conn_garbled(struct host_conn *hc, enum frame_result r) {
    uint32_t hidden;
    char peer[ADDRESS_TEXT_MAX];
    hc->loop->count.conns_garbled++;
    if (log_allowed(hc->loop, &hc->loop->garbled_log, &hidden)) {
        address_of_peer(hc->fd, peer, sizeof peer);
        LOG(hc->conn.env, TRACE_WARN, "connection %s %s: what came is no message: %s; closed (%u such lines kept back)",
            hc->at ? "to" : "from", hc->at ? hc->at : peer, frame_result_text(r), hidden);
    }
    conn_end(hc, ERR_FORMAT);
}

// ---- sending --------------------------------------------------------------------------------------------------------
static const struct frame_header *head_of(struct host_conn *hc, uint32_t i, const struct msg *m) {
    struct frame_header *h = &hc->heads[(hc->heads_first + i) % BATCH_MSGS];
    if (i == hc->heads_len) {
        frame_encode(h, m, !hc->is_unix, 0);
        hc->heads_len++;
    }
    return h;
}

struct batch {
    struct iovec iov[3 * BATCH_MSGS];
    uint32_t iov_len;
    uint64_t skip_bytes; // of what is added first: gone already
    uint64_t len_bytes;
};

static void batch_add(struct batch *b, const void *p, uint64_t len_bytes) {
    uint64_t skip = MIN(b->skip_bytes, len_bytes);
    b->skip_bytes -= skip;
    if (len_bytes == skip) return;
    b->iov[b->iov_len++] = (struct iovec){(uint8_t *)(uintptr_t)p + skip, len_bytes - skip};
    b->len_bytes += len_bytes - skip;
}

static void batch_fill(struct host_conn *hc, struct batch *b) {
    uint32_t i = 0;
    b->iov_len = 0;
    b->len_bytes = 0;
    b->skip_bytes = hc->front_sent;
    LIST_FOR(&hc->queue, n) {
        const struct msg *m = LIST_ENTRY(n, struct msg, node);
        if (i == BATCH_MSGS || b->len_bytes >= BATCH_BYTES) break;
        batch_add(b, head_of(hc, i++, m), FRAME_HEADER_BYTES);
        batch_add(b, m->body, m->body_len);
        if (m->payload.len_bytes) batch_add(b, slice_data(m->payload), m->payload.len_bytes);
    }
}

static void queue_sent(struct host_conn *hc, uint64_t sent_bytes) {
    hc->loop->count.net_bytes_out += sent_bytes;
    hc->queued_bytes -= sent_bytes;
    hc->front_sent += sent_bytes;
    while (!list_empty(&hc->queue)) {
        struct msg *m = LIST_ENTRY(hc->queue.next, struct msg, node);
        if (hc->front_sent < frame_bytes(m)) return;
        hc->front_sent -= frame_bytes(m);
        hc->heads_first = (hc->heads_first + 1) % BATCH_MSGS;
        hc->heads_len--;
        hc->loop->count.msgs_out++;
        list_remove(&m->node);
        msg_free(m);
    }
}

// Until all is gone (0), the socket takes no more or others shall have their turn (EAGAIN), or an error.
static int send_queued(struct host_conn *hc) {
    struct batch b;
    for (int i = 0; i < BATCHES_PER_TURN; i++) {
        if (list_empty(&hc->queue)) return 0;
        batch_fill(hc, &b);
        struct msghdr mh = {.msg_iov = b.iov, .msg_iovlen = b.iov_len};
        ssize_t n = sendmsg(hc->fd, &mh, MSG_NOSIGNAL);
        hc->loop->count.syscalls++;
        hc->loop->count.net_writes++;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        queue_sent(hc, (uint64_t)n);
        if ((uint64_t)n < b.len_bytes) return EAGAIN;
    }
    return list_empty(&hc->queue) ? 0 : EAGAIN;
}

static void conn_read(struct host_conn *hc);

static void conn_write(struct host_conn *hc) {
    int eno = send_queued(hc);
    if (eno == 0 || eno == EAGAIN) {
        watch_change(&hc->watch, eno ? EPOLLIN | EPOLLOUT : EPOLLIN);
        return;
    }
    // The peer is gone, but what it said before may still wait to be read, and says more than the error does.
    drop_queue(hc);
    conn_read(hc);
    if (hc->state == CONN_OPEN) conn_end(hc, why_of(eno));
}

void conns_send(struct loop *l) {
    for (struct list *n; (n = list_pop_front(&l->conns_to_send));)
        conn_write(LIST_ENTRY(n, struct host_conn, to_send));
}

static void send_soon(struct host_conn *hc) {
    if (list_empty(&hc->to_send)) list_push_back(&hc->loop->conns_to_send, &hc->to_send);
}

void host_conn_send(struct conn *c, struct msg *m) {
    struct host_conn *hc = host_conn_of(c);
    if (hc->state == CONN_ENDED) {
        msg_free(m);
        return;
    }
    list_push_back(&hc->queue, &m->node);
    hc->queued_bytes += frame_bytes(m);
    bool waits = hc->watch.events & EPOLLOUT; // it will be sent when the socket takes more
    if (hc->state == CONN_OPEN && !waits) send_soon(hc);
}

uint64_t host_conn_queued_bytes(const struct conn *c) { return host_conn_of(c)->queued_bytes; }

// ---- receiving ------------------------------------------------------------------------------------------------------
static void deliver(struct host_conn *hc, struct msg *m) {
    hc->loop->count.msgs_in++;
    list_remove(&hc->silent);
    hc->conn.events->message(&hc->conn, m);
}

static void payload_whole(struct host_conn *hc) {
    struct msg *m = hc->in;
    enum frame_result r = frame_check_payload(&hc->in_frame, slice_data(m->payload));
    if (r != FRAME_OK) {
        conn_garbled(hc, r);
        return;
    }
    hc->in = NULL;
    deliver(hc, m);
}

// A message whose header and body are proven; p, len_bytes: what is there of its payload. Returns what it took.
static uint32_t take_message(struct host_conn *hc, const struct frame *f, const uint8_t *p, size_t len_bytes) {
    struct mem *mem = hc->conn.env->mem;
    struct msg *m = msg_new(mem, f->type, f->body_len);
    m->flags = f->flags;
    memcpy(m->body, f->body, f->body_len);
    hc->in_large = f->payload_len >= LARGE_PAYLOAD;
    if (!f->payload_len) {
        deliver(hc, m);
        return 0;
    }
    uint32_t got = (uint32_t)MIN(len_bytes, f->payload_len);
    m->payload = (struct slice){.buf = buf_new(mem, f->payload_len), .len_bytes = f->payload_len};
    memcpy(slice_data(m->payload), p, got);
    hc->in = m;
    hc->in_frame = *f;
    hc->in_got = got;
    if (got == f->payload_len) payload_whole(hc);
    return got;
}

static void keep_left(struct host_conn *hc, const uint8_t *p, size_t len_bytes) {
    ASSERT(len_bytes < FRAME_SMALL_MAX);
    if (!hc->left) hc->left = mem_alloc(hc->conn.env->mem, FRAME_SMALL_MAX);
    memcpy(hc->left, p, len_bytes);
    hc->left_len = (uint32_t)len_bytes;
}

// The bytes of a stream from a frame's beginning on. A callback may close the connection at any message.
static void parse(struct host_conn *hc, const uint8_t *p, size_t len_bytes) {
    while (len_bytes && hc->state == CONN_OPEN) {
        struct frame f;
        enum frame_result r = frame_decode(p, len_bytes, &f);
        if (r == FRAME_MORE) {
            keep_left(hc, p, len_bytes);
            return;
        }
        if (r != FRAME_OK) {
            conn_garbled(hc, r);
            return;
        }
        uint32_t small = FRAME_HEADER_BYTES + f.body_len;
        uint32_t took = small + take_message(hc, &f, p + small, len_bytes - small);
        p += took;
        len_bytes -= took;
    }
}

// What was read: the rest of a payload first, if one was awaited, then the buffer.
static void took_bytes(struct host_conn *hc, size_t n, uint32_t left_len) {
    if (hc->in) {
        uint32_t part = (uint32_t)MIN(n, hc->in_frame.payload_len - hc->in_got);
        hc->in_got += part;
        n -= part;
        if (hc->in_got == hc->in_frame.payload_len) payload_whole(hc);
    }
    if (hc->state == CONN_OPEN) parse(hc, hc->loop->rx, left_len + n);
}

// One read; true if there may be more to read at once.
static bool read_once(struct host_conn *hc) {
    struct iovec iov[2];
    int iov_len = 0;
    size_t asked = 0;
    uint32_t left_len = hc->left_len;
    if (hc->in) {
        asked = hc->in_frame.payload_len - hc->in_got;
        iov[iov_len++] = (struct iovec){slice_data(hc->in->payload) + hc->in_got, asked};
    } else if (left_len) {
        memcpy(hc->loop->rx, hc->left, left_len);
    }
    size_t offered = hc->in_large ? LARGE_READ_BYTES : LOOP_RX_BYTES - left_len;
    iov[iov_len++] = (struct iovec){hc->loop->rx + left_len, offered};
    asked += offered;
    ssize_t n = readv(hc->fd, iov, iov_len);
    hc->loop->count.syscalls++;
    hc->loop->count.net_reads++;
    if (n < 0 && errno == EINTR) return true;
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) {
        conn_end(hc, n == 0 ? ERR_CONN : why_of(errno));
        return false;
    }
    hc->left_len = 0;
    hc->loop->count.net_bytes_in += (uint64_t)n;
    took_bytes(hc, (size_t)n, left_len);
    return (size_t)n == asked;
}

static void conn_read(struct host_conn *hc) {
    for (int i = 0; i < READS_PER_TURN && hc->state == CONN_OPEN; i++)
        if (!read_once(hc)) return;
}

// ---- opening --------------------------------------------------------------------------------------------------------
static void set_options(struct host_conn *hc) {
    if (!hc->is_unix) {
        setsockopt(hc->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        return;
    }
    // Unix sockets do not grow by themselves. The first needs a privilege, the second is cut to the system's limit.
    if (setsockopt(hc->fd, SOL_SOCKET, SO_SNDBUFFORCE, &(int){UNIX_SEND_BYTES}, sizeof(int)) != 0)
        setsockopt(hc->fd, SOL_SOCKET, SO_SNDBUF, &(int){UNIX_SEND_BYTES}, sizeof(int));
}

static void conn_open(struct host_conn *hc) {
    hc->state = CONN_OPEN;
    if (!list_empty(&hc->queue)) send_soon(hc);
    hc->conn.events->opened(&hc->conn);
}

// A connect to a port of this host where nobody listens may, by chance, be given that very port and meet itself.
static bool met_itself(int fd) {
    struct sockaddr_storage own = {0}, peer = {0};
    socklen_t own_len = sizeof own, peer_len = sizeof peer;
    return getsockname(fd, (struct sockaddr *)&own, &own_len) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 && own_len == peer_len &&
           memcmp(&own, &peer, own_len) == 0;
}

static void connect_ended(struct host_conn *hc) {
    int eno = 0;
    socklen_t len = sizeof eno;
    if (getsockopt(hc->fd, SOL_SOCKET, SO_ERROR, &eno, &len) != 0) eno = errno;
    if (eno == 0 && met_itself(hc->fd)) eno = ECONNREFUSED;
    if (eno) {
        conn_end(hc, why_of(eno));
        return;
    }
    watch_change(&hc->watch, EPOLLIN);
    conn_open(hc);
}

static void on_events(void *arg, uint32_t events) {
    struct host_conn *hc = arg;
    if (hc->state == CONN_CONNECTING) {
        if (list_empty(&hc->pending)) connect_ended(hc);
        return;
    }
    if (events & EPOLLOUT) conn_write(hc);
    if (hc->state == CONN_OPEN && events & ~(uint32_t)EPOLLOUT) conn_read(hc);
}

static struct host_conn *conn_new(struct loop *l, int fd, bool is_unix, const struct net_events *ev, void *ctx) {
    struct host_conn *hc = mem_alloc(l->env.mem, sizeof *hc);
    hc->conn = (struct conn){.env = &l->env, .events = ev, .ctx = ctx};
    hc->loop = l;
    hc->fd = fd;
    hc->is_unix = is_unix;
    list_push_back(&l->conns, &hc->node);
    list_init(&hc->silent);
    list_init(&hc->pending);
    list_init(&hc->to_send);
    list_init(&hc->queue);
    return hc;
}

// Room for one more accepted connection.
static bool make_room(struct loop *l, int fd) {
    if (l->conns_len < l->conns_max) return true;
    uint32_t hidden;
    bool silent = !list_empty(&l->conns_silent);
    l->count.conns_refused++;
    if (log_allowed(l, &l->refused_log, &hidden)) {
        char peer[ADDRESS_TEXT_MAX];
        address_of_peer(fd, peer, sizeof peer);
        LOG(&l->env, TRACE_WARN, "%u connections, the limit: %s (%u such lines kept back)", l->conns_max,
            silent ? "the oldest that never spoke is closed" : peer, hidden);
    }
    if (silent) conn_end(LIST_ENTRY(l->conns_silent.next, struct host_conn, silent), ERR_CONN);
    return silent;
}

void conn_accepted(struct loop *l, int fd, bool is_unix, const struct net_events *ev, void *ctx) {
    if (!make_room(l, fd)) {
        close(fd);
        return;
    }
    struct host_conn *hc = conn_new(l, fd, is_unix, ev, ctx);
    hc->conn.accepted = true;
    l->conns_len++;
    l->count.conns_accepted++;
    list_push_back(&l->conns_silent, &hc->silent);
    set_options(hc);
    err r = watch_add(l, &hc->watch, fd, EPOLLIN, on_events, hc);
    if (r != OK) { // the user has not heard of it yet
        LOG(&l->env, TRACE_WARN, "a connection cannot be watched: %s", err_text(r));
        detach(hc);
        return;
    }
    conn_open(hc);
}

static void pend(struct host_conn *hc, err why) {
    hc->pending_why = why;
    list_push_back(&hc->loop->conns_pending, &hc->pending);
}

static err connect_address(struct host_conn *hc, const char *at, bool *connected) {
    struct address a;
    int dir_fd = -1;
    err r = address_parse(hc->conn.env, at, false, &a);
    if (r == OK && a.is_unix) r = address_of_path(a.path, &a, &dir_fd);
    if (r != OK) return r == ERR_NOENT ? ERR_REFUSED : r;
    hc->is_unix = a.is_unix;
    const struct sockaddr *sa = (const struct sockaddr *)a.raw;
    hc->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int eno = 0;
    if (hc->fd < 0 || connect(hc->fd, sa, a.raw_len) != 0) eno = errno;
    if (dir_fd >= 0) close(dir_fd);
    // The socket's file is there and no process has the socket. TCP refusals say less: a firewall may have spoken.
    hc->conn.nobody = a.is_unix && eno == ECONNREFUSED;
    if (eno && eno != EINPROGRESS) return why_of(eno);
    *connected = !eno;
    set_options(hc);
    return watch_add(hc->loop, &hc->watch, hc->fd, eno ? EPOLLOUT : EPOLLIN, on_events, hc);
}

struct conn *host_net_connect(struct env *e, const char *at, const struct net_events *ev, void *ctx) {
    struct loop *l = loop_of(e);
    struct host_conn *hc = conn_new(l, -1, false, ev, ctx);
    hc->at = mem_strdup(e->mem, at);
    bool connected = false;
    err r = connect_address(hc, at, &connected);
    if (r != OK || connected) pend(hc, r);
    return &hc->conn;
}

// Only those that wait now: a closed() that connects anew at once has its turn in the next.
void conns_deliver(struct loop *l) {
    struct list now;
    list_init(&now);
    for (struct list *n; (n = list_pop_front(&l->conns_pending));) list_push_back(&now, n);
    for (struct list *n; (n = list_pop_front(&now));) {
        struct host_conn *hc = LIST_ENTRY(n, struct host_conn, pending);
        if (hc->pending_why == OK)
            conn_open(hc);
        else
            conn_end(hc, hc->pending_why);
    }
}

// What is queued gets one chance to leave: a refusal's reason goes before the refusal.
void host_conn_close(struct conn *c) {
    struct host_conn *hc = host_conn_of(c);
    if (hc->state == CONN_ENDED) return;
    if (hc->state == CONN_OPEN) (void)send_queued(hc);
    detach(hc);
}

void host_set_conns_max(struct loop *l, uint32_t max) { l->conns_max = max; }

void conns_close(struct loop *l) {
    while (!list_empty(&l->conns)) detach(LIST_ENTRY(l->conns.next, struct host_conn, node));
}
