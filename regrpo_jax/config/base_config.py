"""Every field of a run, with its unit, its default and what else it may be. A config file changes what it needs.

Override any field on the command line: `--config.objective.eta=0.05`. An unknown field is an error.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.fields import (
    above_zero,
    amounts,
    any_of,
    at_least,
    cluster,
    defaults_of,
    lengths,
    multiple_of,
    one_of,
    optional,
    places,
    server,
    servers,
    share,
    shares,
    some_of,
    together,
    updates,
)
from regrpo_jax.config.servers import ENDPOINTS
from regrpo_jax.records.types import ErrorType

# Name -> share of one that stands alone: the paper's, of error types among its records.
ERROR_SHARES = dict.fromkeys(map(str, ErrorType)) | {
    "GroundingDrift": 0.294, "ToolMismatch": 0.246, "ArgInvalid": 0.308, "InfoInsufficient": 0.152,
}  # fmt: skip
TRAINING_STAGES = ("sft", "rl", "preference", "online")  # the sections that have an optimizer
PLANNED = ("sft", "rl", "score", "online", "prefill", "decode")
STARTS = dict.fromkeys(("forced_failures", "middle_states", "near_misses"))


def base_config() -> ConfigDict:
    """The defaults, locked: setting a field that is not here raises AttributeError with a suggestion."""
    return defaults_of(declared()).lock()


def stage_section(config: ConfigDict, stage: str) -> ConfigDict:
    """A training stage's own fields, and those that it shares with the others where it has none of its own."""
    own = config[stage].to_dict()
    optimizer = config.optimizer.to_dict() | own.pop("optimizer")
    return ConfigDict(optimizer | config.objective.to_dict() | own)


def declared() -> ConfigDict:
    """The fields, some with what they may be."""
    config = ConfigDict()
    config.seed = 0  # decides weights, data order, sampling and what the data engine plays
    config.stages = ("sft", "rl", "eval")  # run in this order, each resumes; see stages/table.py
    config.log_every = at_least(1, 10)  # updates between lines of metrics.jsonl
    config.played_at_once = at_least(1, 64)  # tasks of recovery, or records of eval, that are played together
    # what shows metrics.jsonl: "tensorboard", "wandb:PROJECT", "mlflow:URI", "trackio:PROJECT"; see docs/metrics.md
    config.log_to = places("tensorboard", "wandb:PROJECT", "mlflow:URI", "trackio:PROJECT")
    config.compilation_cache = "auto"  # folder of compiled programs kept between runs; "auto": accelerators', "" none
    config.export_weights = False  # write full weights, adapter merged, to model/ after the last training stage
    config.mesh = ConfigDict(
        {
            "fsdp": at_least(1, 1),  # devices that share one copy of the weights, each with rows of its own
            "model": at_least(1, 1),  # devices that share one copy of the weights and compute the same rows together
        }
    )
    config.hosts = _hosts()
    config.data = _data()
    config.model = _model()
    config.lora = _lora()
    config.optimizer = _optimizer()
    config.objective = _objective()
    config.sft = _sft()
    config.rl = _rl()
    config.preference = _preference()
    config.agent = _agent()
    config.online = _online()
    config.recovery = _recovery()
    config.player = _player()
    config.requests = _requests()
    config.eval = _eval()
    config.suite = _suite()
    config.tools = _tools()
    config.baselines = _baselines()
    config.environment = _environment()
    config.workers = _workers()
    config.engine = _engine()
    config.teacher = _teacher()
    config.plan = _plan()
    config.audit = ConfigDict({"replay": False})  # play the records of data.rot again, and compare
    # updates of each stage that trains whose trace goes to profile/STAGE/ of the run, see docs/metrics.md
    config.profile = ConfigDict({"updates": updates()})
    config.checkpoint = _checkpoint()
    return config


def _hosts() -> ConfigDict:
    hosts = ConfigDict()  # a run over several processes, as a rule one a host; see docs/hosts.md
    # how they find each other: "one" is alone; "detect", as jax does on a Cloud TPU slice, in a Slurm step, in a
    # Kubernetes job of TPUs and under Open MPI; "plain", by the next three fields
    hosts.kind = one_of("one", "detect", "plain")
    hosts.coordinator = ""  # "HOST:PORT", free there, of process 0; "" takes JAX_COORDINATOR_ADDRESS
    hosts.processes = at_least(0, 0)  # of the run; 0 takes JAX_NUM_PROCESSES
    hosts.index = optional(int)  # of this process, from 0; None takes JAX_PROCESS_ID
    hosts.wait = above_zero(300.0)  # seconds in which all must have come, or the run does not begin
    hosts.heartbeat = above_zero(60.0)  # seconds of silence after which a process is taken for dead
    return hosts


def _checkpoint() -> ConfigDict:
    checkpoint = ConfigDict()
    checkpoint.every = at_least(1, 200)  # updates between checkpoints
    # since the last one, after which another is written with the next line of metrics; a stage's end always writes one
    checkpoint.minutes = above_zero(10.0)
    return checkpoint


def _plan() -> ConfigDict:
    plan = ConfigDict()  # what the stage plan compiles, and for what
    # a TPU slice such as "v5e:2x4", for which libtpu compiles without one; a GPU such as "h200", by analysis; "" for
    # the devices of this machine
    plan.topology = ""
    plan.steps = some_of(PLANNED, PLANNED)  # updates, log-probs of a batch, and what play is made of
    plan.patches = at_least(0, 2048)  # image patches of a group, for a policy that sees
    plan.tries = at_least(0, 4)  # other settings that are compiled where this one does not fit
    return plan


def _data() -> ConfigDict:
    data = ConfigDict()
    # of the data stage: "toolrepair", "suite", a JSON file of trajectories, or the folder of an evaluation run
    data.source = ""
    data.rot = ""  # RoT records (JSON array or JSONL, the authors' schema)
    data.clean = ""  # clean MAT / MM-Traj trajectories, likewise
    data.eval_rot = ""  # held-out RoT records of the eval stage; "" takes data.rot
    data.on_bad_record = one_of("skip", "fatal")  # "skip": name it and go on; "fatal": name it and stop
    # where files lie that records and trajectories name under another root, each "old=new": paths below old are looked
    # for below new, which is beside the file of records, or absolute
    data.path_roots = ()
    data.salvage = False  # of a file of records that breaks off, keep the whole ones before the break
    # turns of clean trajectories whose action failed or has no code: "mask" shows them and does not train them,
    # "train" trains them like the others, "drop" leaves their trajectories out
    data.failed_turns = one_of("mask", "train", "drop")
    # "paper": repairs follow the failed action and its observation; "release": they don't
    data.conditioning = one_of("paper", "release")
    data.train_end_of_turn = True  # train the token that closes a turn; the authors' release does not
    data.prefix_buckets = lengths(256, 512, 1024)  # padded lengths of a group's prefix, in tokens
    data.branch_buckets = lengths(128, 256, 512)  # padded lengths of a branch, in tokens
    # an image is enlarged, or shrunk, to as many pixels; the model's own range counts where it is narrower
    data.pixels = together(
        (4 * 28 * 28, 512 * 28 * 28),
        lambda least, most: 1 <= least <= most >= 784,
        "the least and the most pixels, of which the second is at least 784 and not below the first",
    )
    # RoT records in play: "none" all, "linear" and "success-paced" the easiest first
    data.curriculum = one_of("none", "linear", "success-paced")
    # share of them in play at a stage's first update; "linear": share of the stage's updates after which all are
    data.curriculum_pace = together(
        (0.3, 0.5), lambda start, full: 0 <= start <= 1 and 0 <= full <= 1, "both are shares between 0 and 1"
    )
    # "success-paced": mean success, over so many measured updates, that brings the next tenth into play
    data.curriculum_success = together(
        (0.8, 20),
        lambda success, window: 0 <= success <= 1 <= window and isinstance(window, int),
        "a mean success between 0 and 1, and a whole number of updates above 0",
    )
    return data


def _model() -> ConfigDict:
    model = ConfigDict()
    model.path = ""  # local Hugging Face directory or GGUF file (docs/models.md); "" is the tiny preset
    model.images = True  # tiny preset: with a vision tower
    model.vocab_size = 1000  # tiny preset: tokens of the BPE that is trained on the corpus
    model.hidden_size = multiple_of(32, 128)  # tiny preset
    model.num_layers = at_least(1, 4)  # tiny preset
    # "auto" is decided by the size of the model, see model_defaults.py; the run's config.json says how.
    model.dtype = one_of("auto", "float32", "bfloat16")  # what is computed in: "float32" or "bfloat16"
    # of weights that are frozen or exported; what is trained is float32 whatever this says
    model.param_dtype = one_of("auto", "float32", "bfloat16")
    # recomputed in the backward pass: "full" layers, "dots" all but products with weights, "none"
    model.remat = one_of("auto", "none", "dots", "full")
    # of whole sequences: "xla", "cudnn" (GPU), "splash" (TPU); "auto" takes the device's best
    model.attention = one_of("auto", "xla", "cudnn", "splash")
    # frozen kernels under an adapter: "int8", or "nf4" (four bits, as QLoRA has them)
    model.quantize = one_of("none", "int8", "nf4")
    return model


def _lora() -> ConfigDict:
    lora = ConfigDict()
    lora.path = ""  # adapter in PEFT's format to start from, which decides ranks and targets; "" starts a fresh one
    lora.rank = at_least(1, 8)  # inner width of the adapter
    lora.alpha = above_zero(16.0)  # scale is alpha / rank, in the vision tower alpha / vision_rank
    # share of an adapter's inputs that training sets to zero; the release took 0.05
    lora.dropout = share(0.0, below=True)
    # decoder projections that get one
    lora.targets = some_of(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    )
    lora.last_layers = at_least(0, 0)  # of the decoder, those that learn; 0 for all
    lora.vision_rank = at_least(0, 0)  # inner width in the vision tower; 0 leaves the tower frozen
    # projections of the tower's blocks that get one
    lora.vision_targets = some_of(("qkv", "proj"), ("qkv", "proj", "fc1", "fc2", "gate_proj", "up_proj", "down_proj"))
    return lora


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()  # what every stage that trains does it with: AdamW, on which weights
    # "full" weights, or a "lora" adapter, which is exported to adapter/; "auto" is decided as in model
    optimizer.trainable = one_of("auto", "full", "lora")
    optimizer.microbatches = at_least(1, 1)  # a batch is visited in this many parts (gradient accumulation)
    optimizer.warmup_steps = at_least(0, 20)  # updates of linear warm-up, then a cosine
    optimizer.final_learning_rate_share = share(0.1)  # of the peak, at a stage's last update
    optimizer.weight_decay = at_least(0, 0.0)
    optimizer.beta2 = share(0.98)  # decay of the second moments
    optimizer.clip_norm = above_zero(1.0)  # largest global norm of the gradient
    return optimizer


def _objective() -> ConfigDict:
    objective = ConfigDict()  # of rl and online: reward, advantages, and the estimator of the KL
    objective.lambda_exec = at_least(0, 1.0)  # weight of success in the reward
    objective.eta = at_least(0, 0.1)  # price of 100 reflection tokens, in units of reward
    objective.lambda_val = at_least(0, 0.0)  # weight of V: the verifier's value of a record; of an action that is right
    objective.kl_estimator = one_of("k3", "k1", "k2", "k3_release")  # see core/kl.py; the release trains with k1
    objective.baseline = one_of("mean", "leave_one_out")  # of a group, or a step
    objective.advantage_clip = above_zero(float, optional=True)  # bound on |A|; None for no bound
    objective.zero_variance = one_of("skip", "keep_kl")  # what has no variance: skip it, or hold it near the reference
    return objective


def _training(steps: int, *, learning_rate: float) -> ConfigDict:
    stage = ConfigDict()
    stage.steps = at_least(0, steps)  # updates
    stage.learning_rate = above_zero(learning_rate)  # peak
    stage.optimizer = ConfigDict()  # values in the place of config.optimizer's, for this stage alone
    return stage


def _sft() -> ConfigDict:
    sft = _training(1000, learning_rate=2e-3)
    sft.clean_ratio = share(0.5)  # share of clean examples; the rest are RoT
    sft.batch_rows = at_least(1, 16)  # packed rows of an update
    sft.row_length = at_least(2, 512)  # tokens of a packed row; a longer example is a bad record, nothing is ever cut
    # image patches of a packed row, a multiple of those of an image token (4 in all Qwen2-VL)
    sft.row_patches = at_least(0, 128)
    return sft


def _rl() -> ConfigDict:
    rl = _training(200, learning_rate=2e-4)
    rl.groups_per_batch = at_least(1, 8)  # contrastive groups of an update, five branches each
    rl.beta = at_least(0, 0.04)  # weight of the KL to the reference, which is the policy after the warm start
    rl.normalize_advantages = False  # divide by the group's standard deviation
    rl.two_stream_alpha = optional(float)  # weight of a separate verifier stream; None for one stream
    rl.length_normalize = False  # mean instead of sum of a branch's token log-probs
    return rl


def _preference() -> ConfigDict:
    preference = _training(200, learning_rate=2e-4)
    preference.pairs_per_batch = at_least(1, 16)  # (corrected, failed) actions of an update
    preference.beta = above_zero(0.1)  # how dearly the distance from the policy before the stage is paid for
    return preference


def _agent() -> ConfigDict:
    agent = ConfigDict()
    # a reflection is opened after: a "failure"; failures and low confidence, "paper"; "never"
    agent.gate = one_of("failure", "paper", "never")
    # "pre" also holds an action of low confidence back and reflects before it runs
    agent.timing = one_of("post", "pre")
    agent.retries = at_least(0, 1)  # failed attempts of a step that are allowed, as in the paper's local trajectory
    agent.max_steps = at_least(1, 8)  # actions of an episode, after each message of its user
    agent.turn_tokens = at_least(1, 96)  # sampled in one turn, at most, also of eval
    agent.episode_tokens = at_least(1, 384)  # sampled in an episode, at most
    # pictures that tools make, of which a policy that sees is shown: so many of one observation, so many of an episode,
    # each of so many pixels at most; the names of others are told
    agent.observation_images = together(
        (4, 16, 401_408), lambda one, all_, pixels: min(one, all_) >= 0 < pixels, "two counts, then pixels above 0"
    )
    agent.blind = False  # black pictures take the place of those: the control that tells whether a policy looks
    return agent


def _online() -> ConfigDict:
    online = _training(40, learning_rate=2e-4)
    # "regrpo" reflects after failures; "grpo" retries without; "none" trains nothing
    online.algorithm = one_of("regrpo", "grpo", "none")
    online.tasks = at_least(1, 16)  # groups of an update
    online.branches = at_least(2, 8)  # episodes of a group
    online.collect_seconds = above_zero(float, optional=True)  # of all actions of an update, then it stops; None: any
    online.refills = at_least(0, 0)  # further rounds that are played while too few groups have anything to prefer
    # where tasks start that do not start at their beginning, each "NAME=share" and reported apart: after a failed first
    # action ("forced_failures"); of the others, in the middle of an episode of the update before ("middle_states"), or
    # after an action that failed there ("near_misses")
    online.starts = shares((), STARTS, empty=True)
    # updates that the policy which plays lags behind, so that it can play meanwhile; 0: in turn
    online.staleness = at_least(0, 0)
    online.replay = ""  # workdir of another run whose rollouts the updates repeat; "" plays
    # what pays a first attempt: its "own" outcome, or that with repairs compared "apart"; that, and nothing where it
    # failed ("condition"); what its step came to, as its repair is paid ("shared"); what the "episode" came to
    online.credit = one_of("own", "apart", "condition", "shared", "episode")
    online.beta = at_least(0, 0.01)  # weight of the KL to the policy before the stage
    # advantages are divided by the group's standard deviation plus this, so that a group that differs in the price of
    # reflections alone weighs little; 0 does not divide
    online.advantage_epsilon = at_least(0, 0.1)
    # how far a ratio may fall below 1, and rise above it
    online.clip = together((0.2, 0.28), lambda low, high: low > 0 and high > 0, "both are above 0")
    online.weight_cap = above_zero(float, optional=True)  # largest importance weight of a stale rollout; None for none
    # what has a ratio of its own: a "token", or a whole "branch" (GSPO; wants small bounds)
    online.ratio_of = one_of("token", "branch")
    # the loss: by its "tokens", or by the "budget" of its branches' tokens (Dr. GRPO)
    online.divide_by = one_of("tokens", "budget")
    online.train_truncated = True  # episodes that ran out of tokens train too; if not, they are compared only (DAPO)
    online.epochs = at_least(1, 1)  # optimizer steps on a batch
    return online


def _recovery() -> ConfigDict:
    recovery = ConfigDict()  # tasks of config.suite that are played to measure; those of the baselines too
    recovery.tasks = at_least(1, 192)  # of each split
    recovery.episodes = at_least(1, 2)  # of each task
    # "train"; "validation", "test": names in new combinations; "held_out": new tools and faults too
    recovery.splits = some_of(("test",), ("train", "validation", "test", "held_out"))
    recovery.seed = at_least(0, 7)  # of tasks and sampling; the same for runs that are to be compared
    recovery.temperature = at_least(0, 1.0)  # of the sampling
    recovery.bare_control = False  # play all once more with a bare retry in place of reflections
    return recovery


def _player() -> ConfigDict:
    player = ConfigDict()
    # an OpenAI-compatible server that plays, "http://localhost:8000/v1 MODEL"; "" plays in this process.
    # config.model.path is the same model, needed for all but the stage recovery
    player.server = server()
    player.extended = True  # it takes what vLLM and SGLang add to the API; False for `transformers serve` and OpenAI
    return player


def _requests() -> ConfigDict:
    requests = ConfigDict()  # to the servers of player and teacher
    requests.timeout = above_zero(120.0)  # seconds of one
    requests.retries = at_least(0, 4)  # after one that failed for a while
    requests.at_once = at_least(1, 16)  # at the same time
    return requests


def _eval() -> ConfigDict:
    evaluation = ConfigDict()
    # of a public suite: "episodes" plays end to end, "steps" asks for each turn after the recorded ones before it
    evaluation.mode = one_of("episodes", "steps")
    evaluation.score_only = ()  # files of predictions that were made elsewhere: they are scored, nothing is played
    evaluation.records = at_least(1, 200)  # held-out records replayed, at most
    evaluation.temperature = at_least(0, 0.0)  # 0 is greedy
    evaluation.top_k = at_least(0, 0)  # tokens that are drawn from, the likeliest ones; 0 for all
    # share of the probability that is drawn from, the likeliest tokens; 1 for all
    evaluation.top_p = share(1.0, above=True)
    return evaluation


def _suite() -> ConfigDict:
    suite = ConfigDict()
    # what is played: "toolrepair", a folder that holds tasks.jsonl and its files, or "package.module:make_suite"; see
    # docs/your_own_task.md
    suite.name = "toolrepair"
    suite.path = ""  # folder of a public suite's own files
    suite.system = ""  # first turn: a text file with {tools} in it, or "release" for the authors' words; "" for ours
    suite.brief = (
        False  # a folder, bfcl, tau2: tools are told in few words, reflections are short, for policies that read little
    )
    # toolrepair: "compact", short texts and cheap tools; "full", the toolbox's own tools
    suite.profile = one_of("compact", "full")
    # toolrepair: names of the families; () is all that tell their failures, docs/toolrepair.md. bfcl: names of sets and
    # of classes; tau2: of sets and kinds of trouble; docs/benchmarks.md
    suite.families = ()
    suite.difficulties = (1, 2, 3)  # toolrepair: in turn
    suite.surprises = share(0.6)  # toolrepair: share of tasks in which the natural first action fails
    return suite


def _tools() -> ConfigDict:
    tools = ConfigDict()  # of suites that have no tools of their own
    # names of built-in tools, docs/tools.md has them; "all" takes all, "gta_names" adds GTA's names of them
    tools.builtin = ("all",)
    tools.user = ()  # "package.module:name" of typed functions, Tool classes or Tools
    tools.mcp = ()  # MCP servers, each "name=command with arguments" or "name=https://address"
    # what search looks through: a folder, a .jsonl file, or a search engine "ADDRESS", "ADDRESS KEY_VARIABLE"
    tools.search = server(model=False, or_path=True)
    # models behind tools. OpenAI-compatible ones: "vision=ADDRESS MODEL" for visualizer and math_ocr, "images=ADDRESS
    # MODEL" for image_generator and text_to_image. Your own: "detect=ADDRESS" for text_to_bbox, objectlocation and
    # count_objects, "caption=ADDRESS" for image_description and describe_region, "segment=ADDRESS" for segment;
    # docs/tools.md has what they are sent
    tools.endpoints = servers(**ENDPOINTS)
    # suites whose records hold what their tools answered (gta): "missing", these answer where a tool is missing here;
    # "always"; "never"
    tools.recorded = one_of("missing", "always", "never")
    return tools


def _baselines() -> ConfigDict:
    baselines = ConfigDict()  # they play what config.recovery measures
    baselines.policy = one_of("oracle", "never_repairs", "random")  # who plays: "oracle", "never_repairs", "random"
    return baselines


def _environment() -> ConfigDict:
    environment = ConfigDict()
    environment.workers = at_least(1, 2)  # sandboxed processes that play at the same time; results do not depend on it
    environment.wall_seconds = above_zero(10.0)  # of one action, then it is killed
    # Seconds in which no action ends, then episodes go on without the slow ones; None: all wait, a seed decides all.
    environment.patience = above_zero(float, optional=True)
    environment.allow_unisolated = False  # run actions also where they cannot be isolated, never as root
    return environment


def _workers() -> ConfigDict:
    workers = ConfigDict()  # where the workers of config.environment are, docs/workers.md
    # "local": processes of this machine; "ray": of the machines of a Ray cluster
    workers.backend = one_of("local", "ray")
    # of the cluster, "HOST:PORT", or "auto" for the one that this machine is in; "" for what RAY_ADDRESS names, else a
    # Ray of this machine alone
    workers.address = cluster()
    workers.cpus = at_least(0, 1.0)  # that Ray sets aside for each worker
    workers.memory_gib = at_least(0, 0.0)  # GiB, likewise
    workers.resources = amounts()  # further ones of the cluster's own, each "NAME=NUMBER", likewise
    workers.folder = ""  # where a worker works on its machine, and finds your modules; "" for the path of this folder
    workers.start_seconds = above_zero(300.0)  # until all are there
    return workers


def _engine() -> ConfigDict:
    engine = ConfigDict()
    engine.records = at_least(0, 2000)  # RoT records
    engine.clean = at_least(0, 0)  # clean trajectories, executed as well
    # episodes of an agent whose skills are right and whose decisions are not always
    engine.demonstrations = at_least(0, 0)
    # where they say what went wrong: in a "reflection" block, or in the "thought"
    engine.diagnosis = one_of("reflection", "thought")
    # types of the failures: the paper's four alone in its shares, any as "NAME=share"
    engine.error_types = shares([name for name, usual in ERROR_SHARES.items() if usual], ERROR_SHARES)
    # of the suite: "train", "validation", "test", "held_out"
    engine.split = one_of("train", "validation", "test", "held_out")
    # share of failures that are the suite's own surprises, where a type has some; of a recorded run, 1 takes only what
    # the policy itself got wrong
    engine.natural = share(0.5)
    # what config.teacher does in the place of rules, which need no network: finds near misses, beside rules; writes
    # reflections
    engine.teacher = any_of("near_misses", "reflections")
    engine.synthetic = False  # make observations up where tools or files are not here; into files of their own
    return engine


def _teacher() -> ConfigDict:
    teacher = ConfigDict()
    teacher.server = server()  # an OpenAI-compatible chat API, "http://localhost:8000/v1 MODEL"
    teacher.images = False  # show it the task's pictures
    teacher.requests_per_minute = above_zero(60.0)
    teacher.most_requests = above_zero(int, optional=True)  # of the run, restarts included; None without limit
    teacher.most_dollars = above_zero(float, optional=True)  # likewise, at these prices of a million tokens:
    # of a million tokens that are read, and written
    teacher.prices = together((0.0, 0.0), lambda read, written: read >= 0 and written >= 0, "neither is below 0")
    teacher.max_tokens = at_least(1, 1024)  # of an answer
    return teacher
