"""Trajectories in MM-Traj's forms, all invented: what is difficult about the real ones, and no word of them.

The forms are those of the public readers and converters of the data (MiniCPM-V's `image` with `<image>` or
`<image_00>`, Qwen-VL's `Picture 1: <img>..</img>`, ShareGPT's from/value). The data set may not be redistributed.

    python -m experiments.mm_traj.invented FOLDER      writes mm_traj.json and its files
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Step = tuple[str, str, str]  # thought, code, what was observed
CODE_ROOT, IMAGE_ROOT = ".cache/tongagent", "data/unpacked/tongagent"
_TOOLS = (
    "ask_search_agent(query: str) -> str: asks the web and gives an answer in words",
    "visualizer(question: str, image_path: str) -> str: answers a question about a picture",
    "inspect_file_as_text(file_path: str, question: str) -> str: reads a file that is no picture as text",
    "image_generator(prompt: str) -> str: draws a picture and gives its path",
    "image_edit(prompt: str, image_path: str) -> str: changes a picture and gives the path of the new one",
    "objectlocation(object: str, image_path: str) -> list: boxes of all objects of that name",
    "facedetection(image_path: str) -> list: boxes of all faces",
    "segmentation(image_path: str, prompt: list) -> str: a mask of what stands in a box",
    "final_answer(answer: any): ends the task",
)
_ADVICE = (
    "Write one thought and one block of code in each turn, and wait for what it prints before you go on.",
    "Variables keep their values from one block to the next, so that nothing has to be computed twice.",
    "Never take a name for a variable that is the name of a tool, and import only what is installed.",
    "When something is not clear from a picture, ask again with a question that is about one thing alone.",
    "A number that decides the answer is computed in code, never in the head.",
)


def system_text(sentences: int = 14) -> str:
    """A system turn as long as the real ones, about 3,000 tokens, with 14 rounds of advice."""
    shown = "\n\n".join(
        f"Example {number}.\nTask: {question}\nThought: I look at what is given and ask for it.\n"
        f"Code:\n```py\nfound = {call}\nprint(found)\n```<end_action>\n"
        f"[OUTPUT OF STEP 0] -> Observation:\nPrint outputs:\n{said}\nLast output from code snippet:\nNone\n"
        for number, (question, call, said) in enumerate(
            [
                ("Which bird is painted on the jar?", 'visualizer(question="Which bird is it?", image_path="jar.jpg")',
                 "It is a heron that stands in reeds."),
                ("When was the bridge finished?", 'ask_search_agent(query="year in which the bridge was finished")',
                 "It was finished in 1911, after six years of work."),
                ("What does the second sheet add up to?",
                 'inspect_file_as_text(file_path="sheet.xlsx", question="What is the sum of sheet two?")',
                 "The sum of sheet two is 318."),
            ]
        )
    )  # fmt: skip
    advice = "\n".join(f"{number}. {_ADVICE[number % len(_ADVICE)]}" for number in range(sentences * len(_ADVICE)))
    tools = "\n".join(f"- {tool}" for tool in _TOOLS)
    return f"You solve tasks with Python code that calls tools.\n\n{shown}\n\nThe tools:\n{tools}\n\nRules:\n{advice}"


def observed(text: str) -> str:
    """What the framework tells of code that prints."""
    return f"Print outputs:\n{text}\nLast output from code snippet:\nNone"


def ask(question: str, image: str, said: str) -> Step:
    """A step that asks the visualizer."""
    code = f'answer = visualizer(question="{question}", image_path="{image}")\nprint(answer)'
    return f"I ask about {image}.", code, observed(said)


def final(answer: str) -> Step:
    """A last step that writes its answer out."""
    return "I know it now.", f"final_answer({answer!r})", ""


def record(
    name: str | int, task: str, steps: list[Step], *, image: Any = None, answer: str | None = None, system: str = ""
) -> dict[str, Any]:
    """MiniCPM-V's form. answer: None where the record has none, as MM-Traj's."""
    turns = [{"role": "system", "content": system or system_text()}, {"role": "user", "content": task}]
    for number, (thought, code, said) in enumerate(steps):
        turns.append({"role": "assistant", "content": f"Thought: {thought}\n\nCode:\n```py\n{code}\n```<end_action>"})
        if number < len(steps) - 1:
            turns.append({"role": "user", "content": f"[OUTPUT OF STEP {number}] -> Observation:\n{said}"})
    told = {"id": name, "image": image or {}, "conversations": turns}
    return told | ({} if answer is None else {"answer": answer})


def as_qwen_vl(told: dict[str, Any]) -> dict[str, Any]:
    """The same in Qwen-VL's form: from/value, and pictures in the text."""
    images = list(told["image"].values()) if isinstance(told["image"], dict) else [told["image"]]
    turns = [{"from": turn["role"], "value": turn["content"]} for turn in told["conversations"]]
    text = turns[1]["value"]
    for mark in (*(told["image"] if isinstance(told["image"], dict) else ()), "<image>"):
        text = text.replace(mark, "").lstrip()
    shown = "".join(f"Picture {number}: <img>{path}</img>\n" for number, path in enumerate(images, 1))
    turns[1]["value"] = shown + text
    return {"id": f"identity_{told['id']}", "conversations": turns}


def as_react(name: int, task: str, steps: list[tuple[str, str, dict[str, Any], str]], answer: str) -> dict[str, Any]:
    """ReAct in ShareGPT's form, with a whole number for its id."""
    turns = [
        {"from": "system", "value": "Answer with Thought, Action and Action Input."},
        {"from": "human", "value": task},
    ]
    for thought, tool, given, said in steps:
        turns.append({"from": "gpt", "value": f"Thought: {thought}\nAction: {tool}\nAction Input: {json.dumps(given)}"})
        turns.append({"from": "human", "value": f"Observation: {said}"})
    turns.append({"from": "gpt", "value": f"Thought: I know it now.\nFinal Answer: {answer}"})
    return {"id": name, "conversations": turns}


def picture(path: Path, seed: int) -> None:
    """A picture of nothing that a tool for colours and shapes knows: noise, as a photograph is to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    image = Image.new("RGB", (160, 120), (200, 190, 170))
    draw = ImageDraw.Draw(image)
    for _ in range(400):
        left, top = rng.randrange(160), rng.randrange(120)
        shade = tuple(rng.randrange(256) for _ in range(3))
        draw.line((left, top, left + rng.randrange(-30, 30), top + rng.randrange(-30, 30)), fill=shade, width=2)
    image.save(path)


def _looking(at: str) -> Iterator[tuple[str, str, list[Step], str]]:
    """Questions about one picture; the answer repeats what was seen, in part or in other words."""
    asked = (
        ("What animal sits on the wall?", "A grey heron sits on the wall.", "heron"),
        ("Which number does the tram have?", "The tram has the number 17 above its door.", "17"),
        ("What does the shop sell?", "Through the window one sees loaves and cakes: it is a bakery.", "a bakery"),
        ("What is written on the banner?", 'The banner says "SPRING FAIR".', "SPRING FAIR"),
    )
    for question, said, answer in asked:
        yield question, said, [ask(question, at, said), final(answer)], answer


def _counting(at: str, thing: str, boxes: list[list[int]]) -> list[Step]:
    found = f'boxes = objectlocation(object="{thing}", image_path="{at}")\nprint(boxes)'
    return [
        (f"I look for each {thing}.", found, observed(str(boxes))),
        ("I count the boxes.", "count = len(boxes)\nprint(count)", observed(str(len(boxes)))),
        ("I know it now.", "final_answer(count)", ""),
    ]


def _searching(query: str, said: str, second: str, more: str) -> list[Step]:
    first = f'found = ask_search_agent(query="{query}")\nprint("Found:", found)'
    then = f'more = ask_search_agent(query="{second}")\nprint(f"And: {{more}}")'
    return [("I search.", first, observed(f"Found: {said}")), ("I search on.", then, observed(f"And: {more}"))]


def records() -> list[dict[str, Any]]:
    """All of them; the files that `write` makes belong to them."""
    found: list[dict[str, Any]] = []

    def add(*args: Any, **keywords: Any) -> None:
        found.append(record(f"invented_{len(found):03d}", *args, **keywords))

    for number, (question, _, steps, answer) in enumerate(_looking("data/coco/street_1.jpg")):
        image = "data/coco/street_1.jpg" if number % 2 else {"<image_00>": "data/coco/street_1.jpg"}
        mark = "<image>" if number % 2 else "<image_00>"
        add(f"{mark}\nTask: {question} Attachment: data/coco/street_1.jpg", steps, image=image, answer=answer)
    for number, (question, _, steps, answer) in enumerate(_looking(f"{CODE_ROOT}/gta/image_{9}.jpg")):
        image = {"<image_00>": f"{IMAGE_ROOT}/gta/image_9.jpg"}
        told = f"<image_00>\nTask: {question} It lies at {CODE_ROOT}/gta/image_9.jpg."
        add(told, steps, image=image, answer=answer if number % 2 else None)
    for number, (thing, boxes) in enumerate(
        [
            ("dog", [[1, 2, 30, 40], [50, 8, 90, 60]]),
            ("lamp", [[3, 3, 9, 9]]),
            ("cup", [[1, 1, 5, 5], [8, 1, 12, 5], [20, 2, 25, 9]]),
        ]
    ):
        image = {"<image_00>": f"data/coco/room_{number}.jpg"}
        steps = _counting(f"data/coco/room_{number}.jpg", thing, boxes)
        add(f"<image_00>\nTask: How many {thing}s are there?", steps, image=image, answer=str(len(boxes)))
    for number, (first, second) in enumerate(
        [("sunny", "rainy"), ("a red door", "a blue door"), ("an old man", "a child")]
    ):
        paths = [f"data/coco/pair_{number}_a.jpg", f"data/coco/pair_{number}_b.jpg"]
        code = (
            f"paths = {paths}\nfor place, path in enumerate(paths, 1):\n"
            '    said = visualizer(question="What stands out?", image_path=path)\n    print(f"Image {place}: {said}")'
        )
        said = observed(f"Image 1: It shows {first}.\nImage 2: It shows {second}.")
        answer = f"The first picture shows {first}, the second one {second}."
        image = dict(zip(("<image_00>", "<image_01>"), paths, strict=True))
        add(
            "<image_00>\n<image_01>\nTask: Compare the two.",
            [("I look at both.", code, said), final(answer)],
            image=image,
            answer=answer,
        )
    image = {"<image_00>": "data/coco/street_1.jpg"}
    for query, said, second, more, answer in (
        ("painter of the harbour fresco", "It was painted by Ana Velde in 1932.", "birthplace of Ana Velde",
         "Ana Velde was born in Tomar.", "Ana Velde, who was born in Tomar, painted it in 1932."),
        ("height of Mount Ardin in metres", "Mount Ardin is 2,417 m high.", "year of the first ascent of Mount Ardin",
         "It was first climbed in 1874 by two guides.", "2,417 m, first climbed in 1874"),
        ("What is Node.js used for", "It runs JavaScript on servers, see https://docs.example.com/node/index.html.",
         "latest version v1.2.beta of the Quill editor", "The page https://quill.example.org/v1.2.beta says 1.2.",
         "It runs JavaScript on servers; the editor's version is 1.2."),
    ):  # fmt: skip
        add(
            "<image_00>\nTask: Tell me about it.",
            [*_searching(query, said, second, more), final(answer)],
            image=image,
            answer=answer,
        )
    for name, question, content_said, answer in (
        ("files/bill.txt", "What is the total?", "The total of the bill is 42.50.", "42.50"),
        ("files/stock.csv", "How many bolts are there?", "There are 130 bolts in row 2.", "130"),
        ("files/notes.md", "Who chairs the meeting?", "The meeting is chaired by Ines Roth.", "Ines Roth"),
    ):
        code = f'text = inspect_file_as_text(file_path="{name}", question="{question}")\nprint(text)'
        add(
            f"Task: {question} Attachment: {name}",
            [("I read the file.", code, observed(content_said)), final(answer)],
            answer=answer,
        )
    # The document is read by a model elsewhere, which answers in words that do not stand in the file.
    code = (
        'text = inspect_file_as_text(file_path="files/notes.md", question="In short, what is it about?")\nprint(text)'
    )
    add(
        "Task: What are the notes about?",
        [("I read the file.", code, observed("They are about the flood of the mill.")), final("the flood of the mill")],
        answer="the flood of the mill",
    )
    table = (
        'import csv\nrows = list(csv.DictReader(open("files/stock.csv")))\n'
        'total = sum(int(row["count"]) for row in rows)\nprint(total)'
    )
    add(
        "Task: How many parts are there in all?",
        [("I add them up.", table, observed("185")), ("I know it now.", "final_answer(total)", "")],
        answer="185",
    )
    written = (
        'import csv\nrows = list(csv.DictReader(open("files/stock.csv")))\n'
        'with open("summary.txt", "w") as out:\n'
        '    out.write(f"{len(rows)} kinds of parts, the largest count is 130")\n'
        'print("written")'
    )
    read = 'text = inspect_file_as_text(file_path="summary.txt", question="What does it say?")\nprint(text)'
    add(
        "Task: Summarise files/stock.csv in a file and read it.",
        [
            ("I write it.", written, observed("written")),
            ("I read it.", read, observed("It says: 2 kinds of parts, the largest count is 130")),
            final("2 kinds of parts, the largest count is 130"),
        ],
        answer="2 kinds of parts, the largest count is 130",
    )
    drawn = (
        'from PIL import Image, ImageDraw\nimage = Image.new("RGB", (90, 60), "white")\n'
        'ImageDraw.Draw(image).rectangle((10, 10, 40, 50), fill="blue")\nimage.save("chart.png")\nprint("saved")'
    )
    add(
        "Task: Draw a chart with one bar and say what colour it has.",
        [
            ("I draw it.", drawn, observed("saved")),
            ask("What colour is the bar?", "chart.png", "The bar is blue."),
            final("blue"),
        ],
        answer="blue",
    )
    made = 'path = image_generator(prompt="a lighthouse at night")\nprint(path)'
    add(
        "Task: Draw a lighthouse at night and tell what is in the sky.",
        [
            ("I draw it.", made, observed("cache/9f2c.png")),
            ask("What is in the sky?", "cache/9f2c.png", "A full moon and a few stars."),
            final("A full moon and stars"),
        ],
        answer="A full moon and stars",
    )
    edited = 'new = image_edit(prompt="make the wall green", image_path="data/coco/street_1.jpg")\nprint(new)'
    add(
        "<image_00>\nTask: Make the wall green.",
        [
            ("I change it.", edited, observed("cache/ab12.png")),
            ask("What colour is the wall?", "cache/ab12.png", "The wall is green now."),
            final("The wall is green now."),
        ],
        image=image,
        answer="The wall is green now.",
    )
    faces = 'faces = facedetection(image_path="data/coco/room_1.jpg")\nprint("faces:", faces, len(faces))'
    add(
        "<image_00>\nTask: Is anybody in the room?",
        [("I look for faces.", faces, observed("faces: [[4, 4, 20, 20]] 1")), final("yes")],
        image={"<image_00>": "data/coco/room_1.jpg"},
        answer="yes",
    )
    scale = (
        "price = 3.14\nratio = 0.5\n"
        'found = ask_search_agent(query="price of 3.5mm jack at shop.example.com")\nprint(found)'
    )
    add(
        "Task: What does the jack cost?",
        [
            ("I search.", scale, observed("It costs 4.20 euros.")),
            ("I compute.", "total = 4.20 * 2\nprint(total)", observed("8.4")),
            final("8.4"),
        ],
        answer="8.4",
    )
    both = (
        'first = visualizer(question="Who?", image_path="data/coco/street_1.jpg")\n'
        'second = ask_search_agent(query="Who is " + first)\nprint(first)\nprint("Known for:", second)'
    )
    add(
        "<image_00>\nTask: Who is shown and known for what?",
        [
            ("I look and search.", both, observed("Mira Sol\nKnown for: her clocks.\nThey hang in Porto.")),
            final("Mira Sol, known for her clocks"),
        ],
        image=image,
        answer="Mira Sol, known for her clocks",
    )
    many = (
        'questions = ["How many cars?", "How many trees?"]\n'
        'answers = [visualizer(question=one, image_path="data/coco/street_1.jpg") for one in questions]\n'
        "print(answers)"
    )
    add(
        "<image_00>\nTask: How many cars and trees?",
        [("I ask both.", many, observed("['There are 3 cars.', 'There are 12 trees.']")), final("3 cars and 12 trees")],
        image=image,
        answer="3 cars and 12 trees",
    )
    direct = 'final_answer(visualizer(question="What time does the clock show?", image_path="data/coco/street_1.jpg"))'
    add(
        "<image_00>\nTask: What time is it?",
        [
            ask("Is there a clock?", "data/coco/street_1.jpg", "Yes, above the gate."),
            ("I ask for the time.", direct, ""),
        ],
        image=image,
        answer="ten past four",
    )
    add(
        "Task: Which animal is in data/coco/street_1.jpg?",
        [ask("Which animal?", "data/coco/street_1.jpg", "It is a goat."), final("a goat")],
        image="data/coco/street_1.jpg",
        answer="goat",
    )
    # What nobody can run: failures, files that are not here, results that are not told, no end, no code.
    failed = (
        "I read it.",
        'inspect_file_as_text(file_path="gone.txt", question="?")',
        "Error: File not found: gone.txt",
    )
    for number in range(6):
        add(
            f"Task: Read note {number}.",
            [failed, ask("What?", "data/coco/street_1.jpg", "A goat."), final("A goat.")],
            image=image,
            answer="A goat.",
        )
    for number in range(2):
        add(
            "Task: What is on the plate?",
            [ask("What?", f"elsewhere/plate_{number}.jpg", "A pear."), final("a pear")],
            answer="a pear",
        )
    hidden = (
        'if "yes" in visualizer(question="Is it wet?", image_path="data/coco/street_1.jpg").lower():\n    print("wet")'
    )
    add("<image_00>\nTask: Is it wet?", [("I ask.", hidden, observed("wet")), final("wet")], image=image, answer="wet")
    add(
        "Task: Say hello.",
        [("I print it.", 'print("hello")', observed("hello")), ("And again.", 'print("hello")', "")],
        answer="hello",
    )
    found.append(as_qwen_vl(found[4]))
    found.append(as_qwen_vl(found[0]))
    found.append(as_qwen_vl(found[11]))
    reading = ("I read the bill.", "inspect_file_as_text", {"file_path": "files/bill.txt"}, "coffee 4.50\ntotal 42.50")
    found.append(as_react(7001, "Task: What is the total of files/bill.txt?", [reading], "42.50"))
    looking = ("I search.", "ask_search_agent", {"query": "capital of Ardin"}, "The capital of Ardin is Lorn.")
    found.append(as_react(7002, "Task: What is the capital of Ardin?", [looking], "Lorn"))
    return found


def write(folder: Path) -> Path:
    """The records and their files; the path of the JSON."""
    for number, name in enumerate(
        ["coco/street_1", "unpacked/tongagent/gta/image_9", *(f"coco/room_{n}" for n in range(3)),
         *(f"coco/pair_{n}_{side}" for n in range(3) for side in "ab")]
    ):  # fmt: skip
        picture(folder / "data" / f"{name}.jpg", number)
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files/bill.txt").write_text("coffee 4.50\nlunch 38.00\ntotal 42.50\n")
    (folder / "files/stock.csv").write_text("part,count\nnuts,55\nbolts,130\n")
    (folder / "files/notes.md").write_text(
        "# Meeting\nIn the chair: Ines Roth\nThe water stood a metre high in the mill.\n"
    )
    path = folder / "mm_traj.json"
    path.write_text(json.dumps(records(), indent=1), encoding="utf-8")
    return path


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    print(f"{len(records())} trajectories: {write(place)}")
