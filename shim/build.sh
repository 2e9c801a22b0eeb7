#!/bin/sh
# Compile the shim with plain cc: shim/build.sh OUTPUT [more flags]
# Static, so that it runs on any node's file system; without a C library where start.h can do without one.
set -e
output=$1
shift
flags="-std=gnu11 -O2 -static -Wall -Wextra -Werror -s"
case $(${CC:-cc} -dumpmachine) in
x86_64-*) flags="$flags -DFREESTANDING -nostdlib -ffreestanding -fno-pie -no-pie -fno-stack-protector -U_FORTIFY_SOURCE" ;;
*) flags="$flags -D_FORTIFY_SOURCE=2" ;;
esac
# shellcheck disable=SC2086  # both are lists
exec ${CC:-cc} $flags "$@" -o "$output" "$(dirname "$0")/towpath-cni.c"
