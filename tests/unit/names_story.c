// Names told one story at a time: slots, sessions, open files without a name, attributes, truncates under a crash, a
// replaced disk.
#include "tests/sim/names_model.h"

static struct model m;

static struct wire_attr co_made(struct model *x, uint16_t type, struct handle dir, const char *name) {
    struct wire_attr a;
    err e = co_m_create(x, type, dir, name, 0644, &a);
    assert_int_equal(e, OK);
    return a;
}
static struct handle handle_of(const struct wire_attr *a) {
    return handle_at(a->handle.b);
}

static void (*story)(struct bed *b);
static void whole(struct bed *b) {
    story(b);
    co_pause(b, SEC(2)); // intents are closed
}

static void tell(void (*script)(struct bed *b), uint8_t ioms, uint64_t lease_ns) {
    struct world_options o = bed_options();
    struct bed b;
    bed_begin(&b, 7, ioms, &o);
    if (lease_ns != 0) b.lease_ns = lease_ns;
    m_init(&m, &b, 1);
    story = script;
    bed_run(&b, whole, SEC(1000));
    bed_check_stores(&b);
    bed_end(&b);
}

// ---- exactly once
static struct msg *create_again(struct bed *b, const char *name, uint32_t slot, uint64_t seq) {
    uint32_t len = (uint32_t)strlen(name);
    struct msg *q = mx_msg(b, MSG_CREATE, (uint32_t)sizeof(struct req_create) + len);
    struct req_create *r = (void *)q->body;
    r->h.slot = le32_of(slot);
    r->h.seq = le64_of(seq);
    handle_put(r->dir.b, handle_root());
    r->name_len = le16_of((uint16_t)len);
    memcpy(r->name, name, len);
    return q;
}

static void slots(struct bed *b) {
    struct msg *first, *second, *other;
    assert_int_equal(co_call(b->peer[0], create_again(b, "f", 3, 10), NULL, &first), OK);
    assert_int_equal(co_call(b->peer[0], create_again(b, "f", 3, 10), NULL, &second), OK);
    assert_int_equal(first->body_len, second->body_len);
    assert_memory_equal(first->body + sizeof(struct envelope), second->body + sizeof(struct envelope),
                        first->body_len - sizeof(struct envelope));
    assert_int_equal(co_call(b->peer[0], create_again(b, "g", 3, 9), NULL, &other), ERR_SESSION); // lower
    assert_int_equal(co_call(b->peer[0], create_again(b, "f", 3, 11), NULL, &other), ERR_EXIST);
    assert_int_equal(co_m_name_req(&m, MSG_UNLINK, handle_root(), "f", 0, NULL, NULL), OK);
    assert_int_equal(co_call(b->peer[0], create_again(b, "f", 3, 11), NULL, &other),
                     ERR_EXIST);    // refused once, refused for ever
    node_power_cut(b->iom[0].node); // the mirror has the slot
    co_bed_recover(b);
    assert_int_equal(co_call(b->peer[0], create_again(b, "f", 3, 11), NULL, &other), ERR_EXIST);
    assert_int_equal(co_call(b->peer[0], create_again(b, "f", 3, 20), NULL, &other), OK); // any higher one
    msg_free(other);
    struct msg *stranger = create_again(b, "h", 0, 1);
    memset(((struct req_head *)(void *)stranger->body)->session, 9, 16);
    assert_int_equal(co_call(b->peer[0], stranger, NULL, &other), ERR_SESSION);
    msg_free(first);
    msg_free(second);
}

// ---- open, and no name
static uint64_t discards(struct bed *b) {
    uint64_t n = 0;
    for (uint8_t i = 0; i < b->ioms; i++) n += b->iom[i].discards;
    return n;
}

static void open_without_name(struct bed *b) {
    struct wire_attr a = co_made(&m, MSG_CREATE, handle_root(), "f");
    struct handle h = handle_of(&a);
    assert_int_equal(co_m_handle_req(&m, MSG_OPEN, h), OK);
    b->opens[b->opens_len++] = h;
    assert_int_equal(co_m_name_req(&m, MSG_UNLINK, handle_root(), "f", 0, NULL, NULL), OK);
    assert_int_equal(co_m_getattr(&m, h, &a), OK);
    assert_int_equal(le32_get(a.nlink), 0);
    co_pause(b, SEC(2));
    assert_int_equal(discards(b), 0);
    for (int i = 0; i < 2; i++) { // a restart: the session names it again
        node_power_cut(b->iom[i].node);
        co_bed_recover(b);
        co_pause(b, SEC(3));
        assert_int_equal(co_m_getattr(&m, h, &a), OK);
        assert_int_equal(discards(b), 0);
    }
    b->opens_len = 0;
    assert_int_equal(co_m_handle_req(&m, MSG_RELEASE, h), OK);
    assert_int_equal(co_m_getattr(&m, h, &a), ERR_STALE);
    assert_int_equal(co_m_handle_req(&m, MSG_OPEN, h), ERR_STALE);
    co_pause(b, SEC(1));
    assert_int_equal(discards(b), 3); // once at each member
}

// A file was made, the IOM lost its power, and the answer the way; before the request comes again somebody removes the
// name. It was made once, it is open, and it has no name: a second one would undo what that somebody was told.
static struct msg *create_open(struct bed *b, const char *name) {
    struct msg *q = create_again(b, name, 3, 10);
    ((struct req_create *)(void *)q->body)->open = 1;
    return q;
}

static void made_and_removed(struct bed *b) {
    struct msg *first, *second;
    struct wire_attr a = {0};
    struct handle h;
    assert_int_equal(co_call(b->peer[0], create_open(b, "f"), NULL, &first), OK);
    h = handle_of(&((struct rep_attr *)(void *)first->body)->attr);
    b->creates[b->creates_len++] = (struct wire_slot){le32_of(3), le64_of(10)};
    b->creates[b->creates_len++] = (struct wire_slot){le32_of(3), le64_of(9)};  // of no matter: not its last
    b->creates[b->creates_len++] = (struct wire_slot){le32_of(4), le64_of(10)}; // nor one that it never did
    node_power_cut(b->iom[0].node);
    co_bed_recover(b);
    assert_int_equal(co_m_name_req(&m, MSG_UNLINK, handle_root(), "f", 0, NULL, NULL), OK);
    co_pause(b, SEC(2));
    assert_int_equal(discards(b), 0);
    assert_int_equal(co_call(b->peer[0], create_open(b, "f"), NULL, &second), OK);
    assert_memory_equal(first->body + sizeof(struct envelope), second->body + sizeof(struct envelope),
                        first->body_len - sizeof(struct envelope));
    assert_int_equal(co_m_getattr(&m, h, &a), OK);
    assert_int_equal(le32_get(a.nlink), 0);
    b->creates_len = 0;
    assert_int_equal(co_m_handle_req(&m, MSG_RELEASE, h), OK);
    co_pause(b, SEC(1));
    assert_int_equal(discards(b), 3);
    msg_free(first);
    msg_free(second);
}

static void lease_ends(struct bed *b) {
    struct wire_attr a = co_made(&m, MSG_CREATE, handle_root(), "f");
    assert_int_equal(co_m_handle_req(&m, MSG_OPEN, handle_of(&a)), OK);
    assert_int_equal(co_m_name_req(&m, MSG_UNLINK, handle_root(), "f", 0, NULL, NULL), OK);
    co_pause(b, SEC(6)); // the lease is 5 s
    co_pause(b, SEC(2));
    assert_int_equal(discards(b), 3);
    assert_int_equal(co_m_handle_req(&m, MSG_OPEN, handle_root()), ERR_SESSION);
    assert_int_equal(co_m_create(&m, MSG_CREATE, handle_root(), "g", 0644, &a), ERR_SESSION);
    snprintf((char *)b->session, 16, "a new session");
    assert_int_equal(co_mx_session(b, MSG_SESSION_OPEN), OK);
    co_made(&m, MSG_CREATE, handle_root(), "g");
    assert_int_equal(co_mx_session(b, MSG_SESSION_CLOSE), OK);
    assert_int_equal(co_m_create(&m, MSG_CREATE, handle_root(), "h", 0644, &a), ERR_SESSION);
}

// ---- extended attributes
static err co_xattr(uint16_t type, struct handle h, const char *name, const char *value, uint32_t len, uint32_t flags,
                    char *out, uint32_t *out_len) {
    struct bed *b = m.b;
    uint32_t name_len = (uint32_t)strlen(name);
    struct msg *q = mx_msg(b, type, (uint32_t)sizeof(struct req_xattr) + name_len), *reply;
    struct req_xattr *r = (void *)q->body;
    handle_put(r->handle.b, h);
    r->flags = le32_of(flags);
    r->name_len = le16_of((uint16_t)name_len);
    memcpy(r->name, name, name_len);
    if (len > 0) {
        struct buf *buf = buf_new(mx_env(b)->mem, len);
        memcpy(buf->data, value, len);
        msg_set_payload(q, (struct slice){buf, 0, len});
        buf_unref(buf);
    }
    bool changes = type == MSG_SETXATTR || type == MSG_REMOVEXATTR;
    err e = co_mx_call(b, h.starter, changes ? 0 : -1, q, &reply);
    if (e == OK && out != NULL) {
        *out_len = reply->payload.len_bytes;
        if (*out_len > 0) memcpy(out, slice_data(reply->payload), *out_len);
    }
    msg_free(reply);
    return e;
}

static void xattrs(struct bed *b) {
    static char big[65536], got[65536];
    uint32_t len = 0;
    for (size_t i = 0; i < sizeof big; i++) big[i] = (char)(i * 7 + i / 256);
    struct wire_attr a = co_made(&m, MSG_CREATE, handle_root(), "f");
    struct handle h = handle_of(&a);
    assert_int_equal(co_xattr(MSG_GETXATTR, h, "user.a", NULL, 0, 0, got, &len), ERR_NODATA);
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.a", NULL, 0, 2, NULL, NULL), ERR_NODATA); // replace only
    for (uint32_t size = 65536; size > 0; size /= 3) {
        assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.a", big, size, 0, NULL, NULL), OK);
        assert_int_equal(co_xattr(MSG_GETXATTR, h, "user.a", NULL, 0, 0, got, &len), OK);
        assert_int_equal(len, size);
        assert_memory_equal(got, big, size);
    }
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.a", "x", 1, 1, NULL, NULL), ERR_EXIST); // create only
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "trusted.b", NULL, 0, 1, NULL, NULL), OK);    // an empty value
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "system.posix_acl_access", "x", 1, 0, NULL, NULL), ERR_NOTSUP);
    assert_int_equal(co_xattr(MSG_LISTXATTR, h, "", NULL, 0, 0, got, &len), OK);
    assert_int_equal(len, strlen("user.a") + 1 + strlen("trusted.b") + 1);
    assert_int_equal(co_xattr(MSG_REMOVEXATTR, h, "user.a", NULL, 0, 0, NULL, NULL), OK);
    assert_int_equal(co_xattr(MSG_REMOVEXATTR, h, "user.a", NULL, 0, 0, NULL, NULL), ERR_NODATA);
    assert_int_equal(co_xattr(MSG_GETXATTR, h, "trusted.b", NULL, 0, 0, got, &len), OK);
    assert_int_equal(len, 0);
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.big", big, 65536, 0, NULL, NULL), OK);
    assert_int_equal(co_m_name_req(&m, MSG_UNLINK, handle_root(), "f", 0, NULL, NULL), OK);
    co_pause(b, SEC(2)); // the check of the stores finds no part of it
}

static void policies(struct bed *b) {
    char got[64];
    uint32_t len;
    struct refmap map;
    struct wire_attr d = co_made(&m, MSG_MKDIR, handle_root(), "d");
    struct handle h = handle_of(&d);
    assert_int_equal(co_xattr(MSG_GETXATTR, h, "user.mendfs.protection", NULL, 0, 0, got, &len), ERR_NODATA);
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.mendfs.protection", "mirror", 6, 0, NULL, NULL), OK);
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.mendfs.quantum", "128K", 4, 0, NULL, NULL), OK);
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.mendfs.quantum", "100K", 4, 0, NULL, NULL), ERR_INVAL);
    assert_int_equal(co_xattr(MSG_SETXATTR, h, "user.mendfs.toughness", "2", 1, 0, NULL, NULL), OK);
    struct wire_attr sub = co_made(&m, MSG_MKDIR, h, "sub"); // inherited, also by a directory on another IOM
    struct wire_attr f = co_made(&m, MSG_CREATE, handle_of(&sub), "f");
    assert_int_equal(refmap_at(&map, f.map.b), OK);
    assert_int_equal(map.protection, PROT_MIRROR);
    assert_int_equal(map.quantum_shift, 17);
    assert_int_equal(f.toughness, 2);
    assert_int_equal(co_xattr(MSG_GETXATTR, handle_of(&f), "user.mendfs.quantum", NULL, 0, 0, got, &len), OK);
    assert_memory_equal(got, "128K", 4);
    assert_int_equal(co_xattr(MSG_SETXATTR, handle_of(&f), "user.mendfs.quantum", "64K", 3, 0, NULL, NULL),
                     ERR_INVAL); // made once
    assert_int_equal(co_xattr(MSG_SETXATTR, handle_of(&f), "user.mendfs.toughness", "0", 1, 0, NULL, NULL), OK);
    assert_int_equal(co_xattr(MSG_REMOVEXATTR, h, "user.mendfs.protection", NULL, 0, 0, NULL, NULL), OK);
    f = co_made(&m, MSG_CREATE, h, "g");
    assert_int_equal(refmap_at(&map, f.map.b), OK);
    assert_int_equal(map.protection, PROT_PARITY);
}

static void links(struct bed *b) {
    struct wire_attr a = co_made(&m, MSG_SYMLINK, handle_root(), "s");
    struct msg *q = mx_msg(b, MSG_READLINK, sizeof(struct req_handle)), *reply;
    handle_put(((struct req_handle *)(void *)q->body)->handle.b, handle_of(&a));
    assert_int_equal(co_mx_call(b, 0, -1, q, &reply), OK);
    assert_int_equal(reply->payload.len_bytes, 2000);
    assert_int_equal(slice_data(reply->payload)[1999], 't');
    msg_free(reply);
    struct wire_attr d = co_made(&m, MSG_MKDIR, handle_root(), "d"), up;
    bool has;
    assert_int_equal(co_m_name_req(&m, MSG_LOOKUP, handle_of(&d), "..", -1, &up, &has), OK);
    assert_true(handle_eq(handle_of(&up), handle_root()));
    assert_int_equal(co_m_create(&m, MSG_CREATE, handle_root(), "..", 0644, &a), ERR_INVAL);
    assert_int_equal(co_m_create(&m, MSG_CREATE, handle_root(), "a/b", 0644, &a), ERR_INVAL);
    char name[300];
    memset(name, 'x', sizeof name);
    name[256] = 0;
    assert_int_equal(co_m_create(&m, MSG_CREATE, handle_root(), name, 0644, &a), ERR_NAMETOOLONG);
    name[255] = 0;
    co_made(&m, MSG_CREATE, handle_root(), name);
    assert_int_equal(co_m_name_req(&m, MSG_LOOKUP, handle_root(), name, -1, &a, &has), OK);
    assert_int_equal(co_m_create(&m, MSG_CREATE, handle_of(&a), "x", 0644, &a), ERR_NOTDIR);
}

// ---- sizes
static void truncate_dies(struct bed *b) {
    struct wire_attr a = co_made(&m, MSG_CREATE, handle_root(), "f");
    struct handle h = handle_of(&a);
    uint64_t size;
    assert_int_equal(co_m_raise(&m, h, 5000000, 0, true, &size), OK);
    for (uint32_t i = 0; i < 40; i++) {
        struct msg *q = mx_msg(b, MSG_SETATTR, sizeof(struct req_setattr)), *reply;
        struct req_setattr *r = (void *)q->body;
        struct call_opts o = {.deadline_ns = env_now_ns(mx_env(b)) + USEC(20 + i * 40)}; // somewhere in the middle
        handle_put(r->handle.b, h);
        r->valid = le32_of(SETATTR_SIZE);
        r->size = le64_of(4000000 - i * 1000);
        r->h.slot = le32_of(5);
        r->h.seq = le64_of(++b->seq[5]);
        err e = co_call(b->peer[0], msg_copy(mx_env(b)->mem, q, false), &o, &reply);
        if (e == OK) msg_free(reply);
        for (uint8_t k = 0; k < b->ioms; k++) node_power_cut(b->iom[k].node);
        co_bed_recover(b);
        assert_int_equal(co_mx_call(b, 0, -1, q, &reply), OK); // slot and sequence as they are
        msg_free(reply);
        assert_int_equal(co_m_getattr(&m, h, &a), OK);
        assert_int_equal(le64_get(a.size), 4000000 - i * 1000);
        assert_int_equal(le32_get(a.truncates), i + 1); // cut once, however often it was begun
        assert_int_equal(co_m_raise(&m, h, 9000000, i, false, &size), ERR_TRUNCATED);
    }
}

static void times(struct bed *b) {
    struct wire_attr a = co_made(&m, MSG_CREATE, handle_root(), "f"), t = a;
    struct handle h = handle_of(&a);
    struct msg *q = mx_msg(b, MSG_SETATTR, sizeof(struct req_setattr)), *reply;
    struct req_setattr *r = (void *)q->body;
    handle_put(r->handle.b, h);
    r->valid = le32_of(SETATTR_MTIME);
    r->mtime_ns = le64_of(12345);
    co_pause(b, MSEC(20));
    assert_int_equal(co_mx_call(b, 0, 0, q, &reply), OK);
    a = ((struct rep_attr *)(void *)reply->body)->attr;
    msg_free(reply);
    assert_int_equal(le64_get(a.mtime_ns), 12345);
    names_touch(b->iom[0].names, h, le64_get(a.ctime_ns) - 1000); // written before the times were set, told late
    co_pause(b, MSEC(20));
    assert_int_equal(co_m_getattr(&m, h, &t), OK);
    assert_int_equal(le64_get(t.mtime_ns), 12345);
    assert_true(le64_get(t.change) > le64_get(a.change));
    names_touch(b->iom[0].names, h, le64_get(a.ctime_ns) + 1000);
    co_pause(b, MSEC(20));
    assert_int_equal(co_m_getattr(&m, h, &t), OK);
    assert_int_equal(le64_get(t.mtime_ns), le64_get(a.ctime_ns) + 1000);
}

// ---- a replaced disk: the whole trees are copied, from the proxy and from the ward
static void replaced_disk(struct bed *b) {
    for (int i = 0; i < 300; i++) co_op_any(&m);
    for (uint8_t gone = 0; gone < b->ioms; gone++) {
        struct bed_iom *s = &b->iom[gone];
        char name[16];
        snprintf(name, sizeof name, "disk%u", gone);
        node_power_cut(s->node);
        world_disk_erase(world_disk_find(b->w, name));
        s->formatted = false;
        co_bed_recover(b);
        for (int i = 0; i < 200; i++) co_op_any(&m); // nothing is missing
    }
    co_pause(b, SEC(3));
}

static void story_slots(void **state) {
    tell(slots, 3, 0);
}
static void story_open(void **state) {
    tell(open_without_name, 3, 0);
}
static void story_made(void **state) {
    tell(made_and_removed, 3, 0);
}
static void story_lease(void **state) {
    tell(lease_ends, 3, SEC(5));
}
static void story_xattrs(void **state) {
    tell(xattrs, 2, 0);
}
static void story_policies(void **state) {
    tell(policies, 4, 0);
}
static void story_links(void **state) {
    tell(links, 3, 0);
}
static void story_truncate(void **state) {
    tell(truncate_dies, 3, 0);
}
static void story_times(void **state) {
    tell(times, 2, 0);
}
static void story_disk(void **state) {
    tell(replaced_disk, 3, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(story_slots),    cmocka_unit_test(story_open),     cmocka_unit_test(story_lease),
        cmocka_unit_test(story_xattrs),   cmocka_unit_test(story_policies), cmocka_unit_test(story_links),
        cmocka_unit_test(story_truncate), cmocka_unit_test(story_times),    cmocka_unit_test(story_disk),
        cmocka_unit_test(story_made)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
