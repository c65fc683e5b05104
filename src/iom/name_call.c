// The door of names to the hub: a call that came in, its answer.
#include "iom/name_inside.h"

void co_names_call(struct names *n, struct inbound *in) {
    struct msg *reply;
    err e = co_names_serve(n, in->m, &reply);
    hub_reply(in, reply, e);
}
