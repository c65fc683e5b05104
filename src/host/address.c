// Addresses: "unix:PATH", "HOST:PORT", "[V6]:PORT" to sockaddr and back.
#include "host/host.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// Splits at the last colon and takes the brackets off.
static bool split_host_port(const char *at, char *host, size_t host_len, const char **port) {
    const char *colon = strrchr(at, ':');
    if (!colon || !colon[1]) return false;
    size_t len = (size_t)(colon - at);
    if (len >= 2 && at[0] == '[' && colon[-1] == ']') {
        at++;
        len -= 2;
    }
    if (!len || len >= host_len) return false;
    memcpy(host, at, len);
    host[len] = 0;
    *port = colon + 1;
    return true;
}

err address_parse(struct env *e, const char *at, bool may_block, struct address *out) {
    *out = (struct address){0};
    if (strncmp(at, "unix:", 5) == 0) {
        out->is_unix = true;
        out->path = at + 5;
        return at[5] ? OK : ERR_INVAL;
    }
    char host[256];
    const char *port;
    if (!split_host_port(at, host, sizeof host, &port)) {
        LOG(e, TRACE_ERROR, "address \"%s\" is neither unix:PATH nor HOST:PORT", at);
        return ERR_INVAL;
    }
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    if (!may_block) hints.ai_flags |= AI_NUMERICHOST;
    int r = getaddrinfo(host, port, &hints, &found);
    if (r != 0) {
        LOG(e, TRACE_ERROR, "address \"%s\": %s", at, gai_strerror(r));
        return ERR_INVAL;
    }
    memcpy(out->raw, found->ai_addr, found->ai_addrlen);
    out->raw_len = found->ai_addrlen;
    freeaddrinfo(found);
    return OK;
}

// sun_path has 108 bytes, directories of test runs and containers have more: the directory is opened and named by its
// descriptor.
err address_of_path(const char *path, struct address *out, int *dir_fd) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const char *slash = strrchr(path, '/');
    char dir[4096];
    size_t len = slash ? (size_t)(slash - path) + 1 : 0;
    if (len >= sizeof dir) return ERR_NAMETOOLONG;
    memcpy(dir, path, len);
    dir[len] = 0;
    *dir_fd = open(len ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*dir_fd < 0) return err_of_errno(errno);
    int n = strlen(path) < sizeof un.sun_path
                ? snprintf(un.sun_path, sizeof un.sun_path, "%s", path)
                : snprintf(un.sun_path, sizeof un.sun_path, "/proc/self/fd/%d/%s", *dir_fd, path + len);
    if ((size_t)n >= sizeof un.sun_path) {
        close(*dir_fd);
        return ERR_NAMETOOLONG;
    }
    memcpy(out->raw, &un, sizeof un);
    out->raw_len = sizeof un;
    return OK;
}

static void format_sockaddr(const struct sockaddr *sa, socklen_t len, char *out, size_t out_len) {
    char host[128], port[16];
    if (sa->sa_family == AF_UNIX)
        snprintf(out, out_len, "a process of this host");
    else if (getnameinfo(sa, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(out, out_len, "an unknown address");
    else
        snprintf(out, out_len, sa->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

void address_of_peer(int fd, char *out, size_t out_len) {
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    if (getpeername(fd, (struct sockaddr *)&ss, &len) != 0)
        snprintf(out, out_len, "a peer that is gone");
    else
        format_sockaddr((struct sockaddr *)&ss, len, out, out_len);
}

err host_resolve(struct env *e, const char *at, char *out, size_t out_len) {
    struct address a;
    err r = address_parse(e, at, true, &a);
    if (r != OK) return r;
    if (a.is_unix) return (size_t)snprintf(out, out_len, "%s", at) < out_len ? OK : ERR_RANGE;
    if (out_len < ADDRESS_TEXT_MAX) return ERR_RANGE;
    format_sockaddr((struct sockaddr *)a.raw, a.raw_len, out, out_len);
    return OK;
}
