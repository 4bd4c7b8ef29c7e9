#!/bin/sh
# The whole job on published files, with a teacher behind a real OpenAI-compatible server on this machine.
#
#   bench/real_input.sh CONFLICTQA_FILE POISONEDRAG_FILE [WORK_FOLDER]
#
# Needs `pip install -c constraints.txt -e '.[serve]'`, which `transformers serve` stands on. Trains a
# Qwen3-style and a GPT-2-style student and one teacher per file for minutes each (bench/students.py), serves the
# teacher, runs `alignlab run dialectical` and keeps result.json and report.html under bench/results/real_input.
set -eu
conflictqa=$1 poisonedrag=$2 work=${3:-$(mktemp -d)}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
port=${PORT:-8123}
mkdir -p "$work"

# the questions with the shortest evidence, so that minutes on a processor are enough; records unchanged
"$python" - "$conflictqa" "$work/conflictqa.jsonl" <<'PY'
import json, sys
sides = ("parametric_memory", "parametric_memory_aligned_evidence", "counter_memory", "counter_memory_aligned_evidence")
with open(sys.argv[1], encoding="utf-8") as file:
    records = [(line, json.loads(line)) for line in file if line.strip()]
whole = [pair for pair in records if all((pair[1].get(side) or "").strip() for side in sides)]
whole.sort(key=lambda pair: sum(len(pair[1][side]) for side in sides))
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.writelines(line for line, _ in whole[:16])
PY
ln -sf "$(realpath "$poisonedrag")" "$work/poisonedrag.json"

show() { # name, dataset, style, questions
    out="$work/$1-$3"
    [ -d "$out-student" ] || "$python" "$here/students.py" "$2" --style "$3" --questions "$4" \
        --output_dir "$out-student" --steps "${STUDENT_STEPS:-320}" --learning_rate 3e-3 --batch 24
    [ -d "$work/$1-teacher" ] || "$python" "$here/students.py" "$2" --teacher_of "$out-student" --questions "$4" \
        --output_dir "$work/$1-teacher" --steps "${TEACHER_STEPS:-180}" --learning_rate 2e-3
    "$bin/transformers" serve "$work/$1-teacher" --port "$port" --device cpu > "$work/server.log" 2>&1 &
    server=$!
    trap 'kill $server 2>/dev/null || true' EXIT INT TERM
    until "$python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null; do sleep 1; done
    "$bin/alignlab" run dialectical --model "$out-student" --dataset "$2" --limit "$4" \
        --teacher "openai:$work/$1-teacher?base_url=http://127.0.0.1:$port/v1&concurrency=1" \
        --probes 10 --search_per_cell 2 --train_per_cell 20 --test_per_cell 50 --sft_steps "${SFT_STEPS:-20}" \
        --use_peft false --batch 16 --learning_rate 3e-4 --max_tokens 160 --output_dir "$out-run"
    kill $server
    trap - EXIT INT TERM
    mkdir -p "$here/results/real_input/$1-$3"
    cp "$out-run/result.json" "$out-run/report.html" "$out-run/run.log" "$here/results/real_input/$1-$3/"
}

show conflictqa "conflictqa:$work/conflictqa.jsonl" qwen3 16
show conflictqa "conflictqa:$work/conflictqa.jsonl" gpt2 16
show poisonedrag "poisonedrag:$work/poisonedrag.json" gpt2 14
