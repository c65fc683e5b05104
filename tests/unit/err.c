// The error table: each row whole, each errno led back to, the kernel's other errnos led to what they mean.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/err.h"
#include <errno.h>
#include <string.h>

static void every_row_is_whole_and_its_name_its_own(void **state) {
    for (unsigned i = 0; i < ERR_COUNT; i++) {
        assert_true(strlen(err_text((err)i)) > 0);
        assert_true(i == OK || strncmp(err_name((err)i), "ERR_", 4) == 0);
        for (unsigned k = 0; k < i; k++) assert_string_not_equal(err_name((err)i), err_name((err)k));
        assert_int_equal(err_errno((err)i) == 0, i == OK);
        assert_int_equal(err_nfsstat3((err)i) == 0, i == OK);
        assert_int_equal(err_class((err)i) == ERRC_OK, i == OK);
        assert_int_equal(err_again((err)i), err_class((err)i) == ERRC_AGAIN);
    }
    assert_int_equal(OK, 0);
    assert_string_equal(err_name(ERR_STALE), "ERR_STALE");
    assert_int_equal(err_errno(ERR_STALE), ESTALE);
    assert_int_equal(err_nfsstat3(ERR_STALE), 70);
    assert_int_equal(err_class(ERR_EPOCH), ERRC_AGAIN);
    assert_int_equal(err_class(ERR_CHECKSUM), ERRC_CORRUPT);
}

static void every_errno_comes_back(void **state) {
    for (unsigned i = 0; i < ERR_COUNT; i++) {
        int eno = err_errno((err)i);
        err back = err_of_errno(eno);
        assert_int_equal(err_errno(back), eno);
        assert_int_equal(err_of_errno(-eno), back);
    }
}

static void an_errno_of_one_row_comes_back_to_it(void **state) {
    for (unsigned i = 0; i < ERR_COUNT; i++) {
        unsigned rows = 0;
        for (unsigned k = 0; k < ERR_COUNT; k++) rows += err_errno((err)k) == err_errno((err)i);
        if (rows == 1) assert_int_equal(err_of_errno(err_errno((err)i)), i);
    }
}

static void the_plainest_meaning_comes_first(void **state) {
    assert_int_equal(err_of_errno(0), OK);
    assert_int_equal(err_of_errno(EIO), ERR_IO);
    assert_int_equal(err_of_errno(EBUSY), ERR_BUSY);
    assert_int_equal(err_of_errno(ENOSPC), ERR_NOSPC);
    assert_int_equal(err_of_errno(EDQUOT), ERR_NOSPC);
    assert_int_equal(err_of_errno(ECONNREFUSED), ERR_REFUSED);
    assert_int_equal(err_of_errno(ECONNRESET), ERR_CONN);
    assert_int_equal(err_of_errno(EPIPE), ERR_CONN);
    assert_int_equal(err_of_errno(EAGAIN), ERR_BUSY);
    assert_int_equal(err_of_errno(ENOSYS), ERR_NOTSUP);
    assert_int_equal(err_of_errno(ENOTSUP), ERR_NOTSUP);
    assert_int_equal(err_of_errno(ELIBBAD), ERR_IO);
    assert_int_equal(err_of_errno(99999), ERR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_whole_and_its_name_its_own),
        cmocka_unit_test(every_errno_comes_back),
        cmocka_unit_test(an_errno_of_one_row_comes_back_to_it),
        cmocka_unit_test(the_plainest_meaning_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
