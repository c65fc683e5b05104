// The program: a table of subcommands.
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

const struct command *const commands[] = {
    &cmd_up,        &cmd_down,     &cmd_status,      &cmd_watch, &cmd_check, &cmd_policy,
    &cmd_start_iom, &cmd_stop_iom, &cmd_replace_iom, &cmd_scrub, &cmd_mount, &cmd_iom,
    &cmd_nfs,       &cmd_export,   &cmd_version,     &cmd_help,  NULL,
};

const struct command *command_find(const char *name) {
    for (const struct command *const *c = commands; *c; c++)
        if (!strcmp((*c)->name, name)) return *c;
    return NULL;
}

static bool wants_help(int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    return false;
}

int main(int argc, char **argv) {
    if (argc < 2) return fail(EXIT_USAGE, "a command is missing; see: mendfs help");
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) name = "help";
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) name = "version";
    const struct command *c = command_find(name);
    if (!c) return fail(EXIT_USAGE, "there is no command %s; see: mendfs help", name);
    if (c != &cmd_help && wants_help(argc - 2, argv + 2)) {
        char *topic[] = {(char *)(uintptr_t)c->name};
        return cmd_help.run(1, topic);
    }
    int status = c->run(argc - 2, argv + 2);
    if (fflush(stdout) || ferror(stdout)) return fail(1, "what %s says cannot be written to stdout", name);
    return status;
}
