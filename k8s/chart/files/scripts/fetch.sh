#!/bin/sh
# Weights into their folder: complete, checked file by file, then marked. Run again, it goes on where it was.
#
# TARGET: the folder. REPO, REVISION: on the hub, or COPIED=1 where another container put files/ there.
set -eu

if [ -f "$TARGET/.complete" ]; then
  echo "$TARGET: complete"
  exit 0
fi
mkdir -p "$TARGET"
if [ -n "${COPIED:-}" ]; then
  path="$(qwenhost fetch "$TARGET/files")"
else
  path="$(qwenhost fetch "$REPO" ${REVISION:+--revision "$REVISION"} --cache "$TARGET/hub")"
fi
# Relative, since the engine mounts the volume elsewhere than it may be mounted here.
ln -sfn "${path#"$TARGET/"}" "$TARGET/model"
echo "$path" > "$TARGET/.complete.new"
mv "$TARGET/.complete.new" "$TARGET/.complete"
echo "$TARGET: complete"
