#!/bin/sh
# Lay a release's notebooks on the branch `notebooks`, which Colab and Binder read:
#   sh tools/notebooks.sh _build/release/notebooks v0.1.0
# The folder of that release is made anew; those of the others stay. From a clone that may push.
set -eu

made=$1
tag=$2
[ -d "$made/$tag" ] || { echo "notebooks: no $tag in $made" >&2; exit 1; }

place=$(mktemp -d)
trap 'git worktree remove --force "$place/branch" 2>/dev/null || true; rm -rf "$place"' EXIT
if git fetch --quiet --depth 1 origin refs/heads/notebooks 2>/dev/null; then
  git worktree add --quiet --detach "$place/branch" FETCH_HEAD
else
  # The first release: a commit without a file, and without a parent.
  none=$(git -c user.name=notebooks -c user.email=notebooks@localhost \
    commit-tree -m "Notebooks of the releases" "$(git mktree </dev/null)")
  git worktree add --quiet --detach "$place/branch" "$none"
fi
rm -rf "$place/branch/$tag"
cp -R "$made/." "$place/branch"
cd "$place/branch"
git add --all
if git diff --cached --quiet; then
  echo "notebooks: those of $tag are there as they are"
  exit
fi
git -c user.name=notebooks -c user.email=notebooks@localhost commit --quiet -m "Notebooks of $tag"
git push --quiet origin HEAD:refs/heads/notebooks
