// Hosts: which machine each IOM of an array is on, as labels. What has one label dies together.
#pragma once
#include "cli/cli.h"
#include "cli/tool.h"

void host_of_machine(char out[MAP_HOST_BYTES]); // the label of this one: its name
bool host_valid(const char *label);             // 1 to 31 letters, digits, dots, hyphens and underscores
uint32_t hosts_given(const char *list);         // how many labels "a,b,c" has
bool hosts_set(struct conf *c, const char *list); // one label an IOM; NULL: all are on this machine. Says why not
bool hosts_fit(const struct conf *c, const char *list); // they are those that the array was made with; says why not

// What the death of one host does to the array that the death of one IOM does not: a sentence. NULL: nothing.
#define HOSTS_WARNING_BYTES 320
const char *hosts_warning(const struct addresses *a, char out[HOSTS_WARNING_BYTES]);

// cluster.conf tells the hosts that the array was made with, which its map has on disk `d`. Not: why has what is wrong. A map that cannot be
// read is no matter of hosts.
bool co_hosts_are_of_map(struct env *e, const struct conf *c, struct disk *d, char why[240]);
