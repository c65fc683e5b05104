// For tests of what must end the process: runs it in a child whose stderr is closed, and looks how it ended.
#pragma once
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static inline int child_status(void (*fn)(void)) { // as of waitpid; 0: fn returned
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        // Unit test runners catch signals to go on with the next test; here a signal is to end the process.
        static const int fatal[] = {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE};
        for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++) signal(fatal[i], SIG_DFL);
        close(STDERR_FILENO);
        fn();
        _exit(0);
    }
    int status = 0;
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status;
}
#define assert_dies(fn) assert_int_not_equal(child_status(fn), 0)
