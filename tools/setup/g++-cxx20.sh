#!/bin/sh
# The C++ compiler as mmcv 2.1.0 has to see it beside torch >= 2.10.
#
# mmcv appends -std=c++17, but torch's headers refuse anything below C++20; of two -std options g++ takes the last.
# -g0 drops debug information that nobody reads (half of the memory). Three quarters of the time is the reading of
# torch/types.h, 77 times over: a precompiled copy (S3PT_PCH, made by build_mmcv.py) saves that. Should g++ refuse the
# copy or fail with it, the file is compiled without it, so that the copy can cost time but never a build.
real=${S3PT_CXX:-g++}
case " $* " in
    *" -c "*) ;;
    *) exec "$real" "$@" ;;
esac
if [ -n "${S3PT_PCH:-}" ] && [ -f "$S3PT_PCH.gch" ]; then
    log=$S3PT_PCH.$$.log
    if "$real" -include "$S3PT_PCH" -Winvalid-pch -Werror=invalid-pch "$@" -std=c++20 -O2 -g0 2>"$log"; then
        cat "$log" >&2
        rm -f "$log"
        exit 0
    fi
    # A refused copy stays refused: remove it, or each of the 77 files pays for the attempt.
    if grep -q -e 'invalid-pch' -e 'precompiled header' "$log"; then rm -f "$S3PT_PCH.gch"; fi
    rm -f "$log"
fi
exec "$real" "$@" -std=c++20 -O2 -g0
