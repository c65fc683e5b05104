// Commands whose names are taken and that are not built yet: they say so.
#include "cli/cli.h"

static int not_yet(const char *name) { return fail(EXIT_USAGE, "%s: not yet in this version; what there is: mendfs help", name); }
static int nfs_run(int argc, char **argv) { return not_yet("nfs"); }
static int export_run(int argc, char **argv) { return not_yet("export"); }

const struct command cmd_nfs = {"nfs", "mendfs nfs --dir DIR", "Serves NFS (not yet in this version)", "", nfs_run};
const struct command cmd_export = {"export", "mendfs export", "Exports folders (not yet in this version)", "",
                                   export_run};
