// Fuzz target: the first byte of the input says what the rest is, a tree page or the payload of journal sectors. It is
// put into a small store with right checksums, so that nothing but the parsers stands before it; opening, reading,
// changing and checking that store must end with a result, whatever it is.
#include "sim/world.h"
#include "store/inside.h"
#include <stdio.h>

struct fuzz {
    struct node *n;
    struct world_disk *raw;
    const uint8_t *p;
    size_t len;
    bool over;
};
static const struct store_ident ident = {"fuzz", "fuzz", 0, 3};

static void put_page(struct fuzz *f, struct super_block *sb) {
    uint8_t page[BLOCK_BYTES] = {0};
    memcpy(page, f->p, MIN(f->len, sizeof page));
    le16 magic = le16_of(TPAGE_MAGIC);
    memcpy(page, magic.b, 2);
    page[2] = TREE_META;
    page[3] %= 3;
    le64 addr = sb->data_at;
    world_disk_poke(f->raw, le64_get(addr) * BLOCK_BYTES, page, sizeof page);
    sb->roots[TREE_META] = (struct super_root){
        .addr = addr, .crc = le32_of(crc32c(0, page, sizeof page)), .levels = (uint8_t)(page[3] + 1)};
    struct map_block map;
    world_disk_peek(f->raw, le64_get(sb->map_at[0]) * BLOCK_BYTES, &map, sizeof map);
    map.words[0] = le64_of(1);
    map.crc = le32_of(crc32c(super_seed(sb), &map.index, BLOCK_BYTES - 4));
    world_disk_poke(f->raw, le64_get(sb->map_at[0]) * BLOCK_BYTES, &map, sizeof map);
    sb->map_crc = le32_of(crc32c(0, &map.crc, 4));
}
static void put_sectors(struct fuzz *f, struct super_block *sb) {
    for (uint64_t seq = le64_get(sb->replay_seq); f->len > 0; seq++) {
        struct journal_sector s = {.sequence = le64_of(seq), .incarnation = le64_of(0), .first = le16_of(0)};
        size_t n = MIN(f->len, JSECTOR_PAYLOAD);
        memcpy(s.payload, f->p, n);
        s.used = le16_of((uint16_t)n);
        s.crc = le32_of(crc32c(super_seed(sb), &s.used, JSECTOR_BYTES - 4));
        world_disk_poke(f->raw,
                        le64_get(sb->journal_at) * BLOCK_BYTES + seq % le64_get(sb->journal_sectors) * JSECTOR_BYTES,
                        &s, sizeof s);
        f->p += n;
        f->len -= n;
    }
}
static void prepare(struct fuzz *f) {
    struct super_block sb;
    world_disk_peek(f->raw, 0, &sb, sizeof sb);
    bool page = f->len > 0 && f->p[0] & 1;
    if (f->len > 0) {
        f->p++;
        f->len--;
    }
    if (page)
        put_page(f, &sb);
    else
        put_sectors(f, &sb);
    super_seal(&sb);
    world_disk_poke(f->raw, 0, &sb, sizeof sb);
    world_disk_poke(f->raw, BLOCK_BYTES, &sb, sizeof sb);
}
static void co_use(struct store *s) {
    uint8_t v[RECORD_BYTES_MAX];
    uint32_t len;
    for (int t = 0; t < TREE_COUNT; t++) {
        struct key k = {{0}};
        for (int i = 0; i < 300 && co_tree_seek(s, (enum tree_id)t, &k, v, sizeof v, &len) == OK; i++) {
            struct batch *b = batch_new(s);
            if (i % 3 == 0)
                batch_del(b, (enum tree_id)t, &k);
            else
                batch_put(b, (enum tree_id)t, &k, v, (len + 40u * (uint32_t)i) % RECORD_BYTES_MAX);
            lsn at;
            if (co_batch_commit(b, &at) != OK) break;
            k = key_next(k);
        }
    }
    uint64_t faults, reached;
    (void)!co_store_verify(s, &(struct store_verify){0}, &faults, &reached);
}
static void fuzz_task(void *arg) {
    struct fuzz *f = arg;
    struct disk *d;
    struct store *s;
    struct store_config c = {.journal_bytes = MIB(1), .cache_bytes = MIB(1)};
    err e = disk_open(node_env(f->n), &(struct disk_open_args){"disk", true, STORE_BYTES_MIN}, &d);
    if (e == OK) e = co_store_format(d, &ident, &c);
    ASSERT(e == OK);
    f->raw = world_disk_find(node_world(f->n), "disk");
    prepare(f);
    if (co_store_open(d, &c, NULL, &s) == OK) {
        co_use(s);
        (void)!co_store_close(s);
    }
    co_disk_close(d);
    f->over = true;
}
static bool going(void *ctx) {
    return !((struct fuzz *)ctx)->over;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len) {
    struct world *w = world_create(1, NULL);
    struct fuzz f = {.n = node_add(w, "a"), .p = p, .len = MIN(len, 100000)};
    node_start(f.n, fuzz_task, &f);
    bool ended = world_run_while(w, going, &f, SEC(100));
    ASSERT(ended);
    world_destroy(w);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
int main(int argc, char **argv) {
    static uint8_t input[1 << 20];
    FILE *f = argc > 1 ? fopen(argv[1], "rb") : stdin;
    if (!f) {
        perror(argv[1]);
        return 2;
    }
    size_t len = fread(input, 1, sizeof input, f);
    if (argc > 1) fclose(f);
    return LLVMFuzzerTestOneInput(input, len);
}
#endif
