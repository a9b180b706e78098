#!/bin/bash
# The images of docker/ without a container engine: check.sh MEED SOURCE-FOLDER [--build [ROOT]].
#
# Goal: what can be wrong in the files is found before somebody builds them. Method: every Dockerfile
# is read instruction by instruction (pinned bases, sources that exist, not root in the end), the
# compose file as YAML with each of its command lines held against the options that MEED knows.
# --build runs the very RUN and COPY instructions of the CPU image in bare Debian roots (made by
# debootstrap, or copied from ROOT; root only) and starts the result as the image's user.
set -euo pipefail
meed=$1 source=$2
failures=0
complain() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}

# One instruction a line, comments gone, continued lines joined.
instructions() {
    sed -e '/^[[:space:]]*#/d' "$1" | awk '{
        if (sub(/\\$/, "")) { line = line $0; next }
        if (line $0 != "") print line $0
        line = ""
    }'
}

# What the binary links must be installed in the last stage: a package whose name begins with it.
libraries() { # DOCKERFILE
    local name=$1 packages library
    packages=$(instructions "$source/docker/$name" | grep 'apt-get install' | tail -n 1)
    for library in $(readelf -d "$meed" | sed -n 's/.*NEEDED.*\[\(lib[^.]*\)\.so.*/\1/p'); do
        case $library in
        libc | libm | libgcc_s | libgomp | libstdc++) continue ;; # others bring them
        libasan | libubsan | libtsan) continue ;;
        libgpr) library=libgrpc ;;
        libcrypto) library=libssl ;;
        libz) library=zlib1g ;;
        esac
        [[ $packages == *" $library"* ]] || complain "$name: $library is linked, but not installed"
    done
}

lint() { # DOCKERFILE
    local name=$1 stages=' ' user='' word rest base item
    while read -r word rest; do
        case $word in
        FROM)
            base=${rest%% *}
            user=''
            case $base in
            *:latest) complain "$name: $base moves; name a release" ;;
            *:*) ;;
            *) [[ $stages == *" $base "* ]] || complain "$name: $base has no tag" ;;
            esac
            [[ $rest != *' AS '* ]] || stages+="${rest##* } "
            ;;
        COPY)
            if [[ $rest == --from=* ]]; then
                item=${rest%% *}
                [[ $stages == *" ${item#--from=} "* ]] || complain "$name: no stage for $item"
                continue
            fi
            for item in ${rest% *}; do
                [ -e "$source/$item" ] || complain "$name: COPY of $item, which is not there"
            done
            ;;
        USER) user=$rest ;;
        RUN)
            [[ $rest != *'apt-get install'* || $rest == *--no-install-recommends* ]] ||
                complain "$name: apt-get install without --no-install-recommends"
            ;;
        ADD) complain "$name: ADD; use COPY" ;;
        WORKDIR | ENTRYPOINT | CMD | ENV | LABEL) ;;
        *) complain "$name: instruction $word" ;;
        esac
    done < <(instructions "$source/docker/$name")
    [[ -n $user && $user != root && $user != 0 ]] || complain "$name: ends as root"
}

compose() {
    if ! python3 -c 'import yaml' 2> /dev/null; then
        echo "skipped: compose.yaml is not read, python3 with yaml is not here"
        return
    fi
    python3 - "$meed" "$source/docker" << 'END' || failures=$((failures + 1))
import os, re, shlex, subprocess, sys, yaml
meed, folder = sys.argv[1:]
bad = []
top = yaml.safe_load(open(os.path.join(folder, "compose.yaml")))
services, volumes = top["services"], top["volumes"]
federation = yaml.safe_load(open(os.path.join(folder, "federation.yaml")))
yaml.safe_load(open(os.path.join(folder, "prometheus.yml")))
joined = set()
for name, service in services.items():
    image = service["image"]
    if ":" not in image or image.endswith(":latest"):
        bad.append(f"{name}: image {image} is not pinned")
    if "build" in service:
        context = os.path.join(folder, service["build"]["context"])
        if not os.path.exists(os.path.join(context, service["build"]["dockerfile"])):
            bad.append(f"{name}: no Dockerfile")
    for other in service.get("depends_on", {}):
        if other not in services:
            bad.append(f"{name}: depends on {other}, which is no service")
    for volume in service.get("volumes", []):
        there = volume.split(":")[0]
        if there[0] == "." and not os.path.exists(os.path.join(folder, there)):
            bad.append(f"{name}: mounts {there}, which is not there")
        if there[0] != "." and there not in volumes:
            bad.append(f"{name}: volume {there} is not declared")
    if not image.startswith("meed:"):
        continue
    command = service["command"]
    words = shlex.split(command[0] if isinstance(command, list) else command)
    words = words[words.index("meed") + 1:] if "meed" in words else words
    known = subprocess.run([meed, "help", words[0]], capture_output=True, text=True)
    for word in words:
        if word.startswith("--") and not re.search(rf"{word}[=\s\[]", known.stdout):
            bad.append(f"{name}: meed {words[0]} has no option {word}")
    if words[0] == "join":
        joined.add((words[words.index("--id") + 1], words[words.index("--data") + 1]))
    if words[0] == "provision":
        ids = words[words.index("--clients") + 1].split(",")
wanted = {(client["id"], client["data"]) for client in federation["clients"]}
if joined != wanted:
    bad.append(f"the clients of federation.yaml are not the services: {joined ^ wanted}")
if sorted(ids) != sorted(client["id"] for client in federation["clients"]):
    bad.append("the certificates are not those of federation.yaml's clients")
for line in bad:
    print("FAILED: compose.yaml:", line, file=sys.stderr)
sys.exit(1 if bad else 0)
END
}

# ---- the build steps, in bare roots ------------------------------------------------------------

root_make() { # ROOT: a fresh root that RUN can work in
    if [ -n "$base" ]; then
        cp -a --one-file-system "$base" "$1"
    else
        debootstrap --variant=minbase bookworm "$1" > "$work/debootstrap.log"
    fi
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    mount -t proc proc "$1/proc"
    mount --bind /dev "$1/dev"
}

stage_end() { # ROOT
    umount "$1/proc" "$1/dev" 2> /dev/null || true
}

build() {
    local word rest root='' stage='' folder=/ from item n=0
    if [ "$(id -u)" != 0 ] || { [ -z "$base" ] && ! command -v debootstrap > /dev/null; }; then
        echo "skipped: the build steps need root and debootstrap"
        return
    fi
    work=$(mktemp -d /tmp/meed-docker.XXXXXX)
    trap 'r=; for r in "$work"/*/; do stage_end "$r"; done; rm -rf --one-file-system "$work"' EXIT
    while read -r word rest; do
        case $word in
        FROM)
            n=$((n + 1))
            stage=${rest##* AS }
            [[ $rest == *' AS '* ]] || stage=stage$n
            root=$work/$stage
            folder=/
            root_make "$root"
            ;;
        WORKDIR)
            folder=$rest
            mkdir -p "$root$folder"
            ;;
        COPY)
            from=$source/
            if [[ $rest == --from=* ]]; then
                from=${rest%% *}
                from=$work/${from#--from=}/
                rest=${rest#* }
            fi
            item=${rest##* }
            [[ $item == /* ]] || item=$folder/$item
            [[ $item != */ && $item != */. ]] || mkdir -p "$root$item"
            for rest in ${rest% *}; do
                if [ "$rest" = . ]; then
                    tar -C "$from" --exclude=.git --exclude='./build*' --exclude=./out -cf - . |
                        tar -C "$root$item" -xf -
                else
                    cp -r "$from/$rest" "$root$item"
                fi
            done
            ;;
        RUN)
            echo "RUN ${rest:0:70}"
            chroot "$root" /usr/bin/env DEBIAN_FRONTEND=noninteractive \
                sh -c "cd $folder && $rest" > "$work/run.log" 2>&1 < /dev/null || {
                tail -n 20 "$work/run.log" >&2
                complain "Dockerfile: RUN $rest"
                return
            }
            ;;
        esac
    done < <(instructions "$source/docker/Dockerfile")
    as_user() { chroot --userspec=10001:10001 "$root" env HOME=/state "$@"; }
    as_user meed --version || complain "the image's binary does not start"
    as_user meed provision /keys/pki --server aggregator --clients a > /dev/null ||
        complain "the image's user cannot write /keys"
    as_user test -w /state || complain "the image's user cannot write /state"
    mkdir "$root/examples"
    cp -r "$source"/examples/tiny/* "$root/examples/"
    as_user meed eval --model /examples/model --benchmark /examples/benchmark.jsonl --quiet |
        tail -n 1 || complain "the image's binary does not compute"
    stage_end "$root"
}

for file in "$source"/docker/Dockerfile*; do
    lint "$(basename "$file")"
    libraries "$(basename "$file")"
done
compose
base=${4:-}
if [ "${3:-}" = --build ]; then
    build
fi
[ $failures = 0 ] || exit 1
echo "ok: docker/"
