#!/bin/sh
# Runs a test under the address sanitizer and fails when any process of it left a report: Criterion
# and the scripts of tests/cli start processes whose reports would otherwise pass unseen.
# usage: sanitized.sh PROGRAM [ARGUMENT...]
here=$(cd "$(dirname "$0")" && pwd)
reports=$(mktemp -d "${TMPDIR:-/tmp}/ppsim-reports-XXXXXX") || exit 1
trap 'rm -rf "$reports"' EXIT

export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path='$reports/report'"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}print_stacktrace=1"
export LSAN_OPTIONS="suppressions='$here/lsan.supp':print_suppressions=0:exitcode=0" # the report tells
"$@"
status=$?

# Criterion's runner loses 48 bytes now and then. A leak of ours has a frame of ours: every test is
# called by Criterion, so that its name alone is no reason to pass over a report.
is_criterions() {
    grep -q LeakSanitizer "$1" && ! grep '^ *#[0-9]' "$1" | grep -v __interceptor_ | grep -qv libcriterion
}

for report in "$reports"/*; do
    [ -e "$report" ] || continue
    ! is_criterions "$report" || continue
    head -n 60 "$report"
    status=1
done
exit $status
