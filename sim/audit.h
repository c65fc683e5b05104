// What must hold of an array at rest, beside what its clients saw: every row's parity equals its data, the trees of each store are valid, its
// allocator says what its records hold, names and link counts agree, each mirror equals what it mirrors, no update is left. False: told to the oracle.
#pragma once
#include "sim/array.h"
#include "sim/oracle.h"

bool audit_rows(struct array *a, struct oracle *o);   // a running array without clients' work
bool audit_stores(struct array *a, struct oracle *o); // after a clean stop of all
