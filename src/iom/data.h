// The data requests of clients and IOMs, one file each: decode, check, act, answer. Each runs in the task of its request and owns `in`.
#pragma once
#include "iom/names.h"
#include "iom/row.h"

void co_data_read(struct rows *r, struct inbound *in);    // MSG_READ: the reply's payload = this member's part
void co_data_write(struct rows *r, struct names *n, struct inbound *in); // MSG_WRITE
void co_data_fsync(struct rows *r, struct inbound *in);   // MSG_FSYNC
void co_data_discard(struct rows *r, struct inbound *in); // MSG_DISCARD
void co_data_zero(struct rows *r, struct inbound *in);    // MSG_ZERO
