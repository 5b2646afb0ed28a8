#!/usr/bin/env bash
# Finds the capacity of a backend whose capacity is known: nats-server with JetStream, the stand-in chat backend, two agents
# and the coordinator, all on loopback. Ends with the ANSWER beside the truth. Everything it starts ends with it.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/target/release
nats=${PLIMSOLL_NATS_SERVER:-$root/.tools/bin/nats-server}
capacity=${PLIMSOLL_DEMO_CAPACITY:-1500}
steps=${PLIMSOLL_DEMO_STEPS:-500,1k,2k}
work=$(mktemp -d)
pids=()

finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Waits until a file holds a pattern; shows the file if that does not happen.
await() {
    for _ in $(seq 1 150); do
        if grep -q "$2" "$1" 2>/dev/null; then return; fi
        sleep 0.2
    done
    echo "demo: waited 30 s for '$2' in:" >&2
    cat "$1" >&2
    exit 3
}

echo "demo: nats-server with JetStream"
"$nats" --addr 127.0.0.1 --port -1 --jetstream --store_dir "$work/js" --ports_file_dir "$work" >"$work/nats.log" 2>&1 &
pids+=($!)
await "$work/nats.log" "Server is ready"
url=$(sed -n 's/.*Listening for client connections on \(.*\)/nats:\/\/\1/p' "$work/nats.log" | head -1)

echo "demo: a stand-in chat backend whose broadcast-worker carries $capacity messages/s"
"$bin/plimsoll-standin" --nats-url "$url" --preset medium --storage memory \
    --broadcast-worker-capacity "$capacity" >"$work/standin.log" 2>&1 &
pids+=($!)
await "$work/standin.log" READY

agents=()
for n in 1 2; do
    "$bin/plimsoll-agent" --listen 127.0.0.1:0 --workers 1 >"$work/agent$n.log" 2>&1 &
    pids+=($!)
    await "$work/agent$n.log" "listens on"
    agents+=("$(sed -n 's/.*listens on \([0-9.:]*\).*/\1/p' "$work/agent$n.log")")
    echo "demo: agent on ${agents[-1]}"
done

set -x
"$bin/plimsoll" max-rps --agents "${agents[0]},${agents[1]}" --nats-url "$url" --workload messages --preset medium \
    --steps "$steps" --warmup 2s --hold 10s --cooldown 1s | tee "$work/report"
{ set +x; } 2>/dev/null
echo
echo "The stand-in's true capacity: $capacity messages/s (broadcast-worker)"
grep '^ANSWER' "$work/report"
