// The table of operating errors as arrays, and the way back from errno.
#include "base/err.h"
#include <errno.h>

struct err_row {
    const char *name, *text;
    enum err_class class;
    int no;
    uint32_t nfs;
};

#define ERR_ROW(name, class, no, nfs, text) [name] = {#name, text, ERRC_##class, no, nfs},
static const struct err_row rows[ERR_COUNT] = {ERR_TABLE(ERR_ROW)};

static const struct err_row *row_of(err e) {
    ASSERT((unsigned)e < ERR_COUNT);
    return &rows[e];
}

const char *err_name(err e) { return row_of(e)->name; }
const char *err_text(err e) { return row_of(e)->text; }
enum err_class err_class(err e) { return row_of(e)->class; }
int err_errno(err e) { return row_of(e)->no; }
uint32_t err_nfsstat3(err e) { return row_of(e)->nfs; }

// errno values of the kernel that no row carries but that mean what a row means.
static err nearest_of(int eno) {
    switch (eno) {
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN: return ERR_REFUSED;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case ENOTCONN:
    case ENETDOWN:
    case ENETRESET: return ERR_CONN;
    case EAGAIN:
    case ETXTBSY: return ERR_BUSY;
    case EDQUOT: return ERR_NOSPC;
    case ENOSYS: return ERR_NOTSUP;
    default: return ERR_IO;
    }
}

err err_of_errno(int eno) {
    if (eno < 0) eno = -eno; // the kernel's own convention (io_uring, FUSE)
    // The first row of an errno is its plainest meaning: EIO is ERR_IO before it is a lost connection.
    for (unsigned e = 0; e < ERR_COUNT; e++)
        if (rows[e].no == eno) return (err)e;
    return nearest_of(eno);
}
