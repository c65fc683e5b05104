// mendfs help, mendfs version.
#include "cli/cli.h"

#include <stdio.h>

static const char overview[] =
    "mendfs: a distributed file system that mends itself. Storage servers (IOMs) hold files striped with parity;\n"
    "gateways (MXs) give them to clients.\n\n"
    "  mendfs up                     make and start an array of four on this machine, and mount it\n"
    "  mendfs status                 how it is\n"
    "  mendfs down                   stop it; the data stays\n\n"
    "Commands:\n";
static const char common[] =
    "\nEvery command that works on a cluster takes --dir DIR, the folder that holds all of it: stores, sockets, pid "
    "files,\n"
    "logs (DIR/log/NAME). Its default: /var/lib/mendfs for root, else ~/.local/share/mendfs. Options may stand "
    "anywhere\n"
    "(--dir DIR or --dir=DIR). A SIZE is a number of bytes or like 512M, 8G. The last line that a command writes is "
    "its summary\n"
    "or its error. Exit status: 0 done, 1 not done, 2 wrong usage, unless `mendfs help COMMAND` says otherwise.\n";

static void help_one(const struct command *c) {
    printf("%s\n\n%s.\n%s%s", c->synopsis, c->brief, *c->help ? "\n" : "", c->help);
}

static int help_run(int argc, char **argv) {
    static const struct option_row options[] = {{0}};
    const char *topic = NULL;
    if (!args_parse(&cmd_help, argc, argv, options, &topic, 0, 1)) return EXIT_USAGE;
    if (topic) {
        const struct command *c = command_find(topic);
        if (!c) return fail(EXIT_USAGE, "there is no command %s; see: mendfs help", topic);
        help_one(c);
        return 0;
    }
    fputs(overview, stdout);
    for (const struct command *const *c = commands; *c; c++) printf("  %-12s %s\n", (*c)->name, (*c)->brief);
    fputs(common, stdout);
    return 0;
}

static int version_run(int argc, char **argv) {
    static const struct option_row options[] = {{0}};
    const char *rest[1];
    if (!args_parse(&cmd_version, argc, argv, options, rest, 0, 0)) return EXIT_USAGE;
    say("mendfs %s", CLI_VERSION);
    return 0;
}

const struct command cmd_help = {"help", "mendfs help [COMMAND]", "Explains a command, or lists them all", "",
                                 help_run};
const struct command cmd_version = {"version", "mendfs version", "Tells the version", "", version_run};
