"""Every field of a run, with its unit and default. A config file takes this and changes what it needs.

Override any field on the command line: `--config.rl.eta=0.05`. An unknown field is an error.
"""

import ml_collections
from ml_collections import config_dict


def base_config() -> ml_collections.ConfigDict:
    """The defaults, locked: setting a field that is not here raises AttributeError with a suggestion."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # decides weights, data order, sampling and the generated corpus
    config.stages = ("sft", "rl", "eval")  # run in this order, each resumes; see stages/table.py
    config.log_every = 10  # updates between lines of metrics.jsonl
    config.compilation_cache = ""  # folder of compiled programs kept between runs; "" keeps none
    config.export_weights = False  # write full weights, adapter merged, to model/ after the last training stage
    config.mesh = ml_collections.ConfigDict({"model": 1})  # devices that share one copy of the weights
    config.data = _data()
    config.model = _model()
    config.lora = _lora()
    config.sft = _sft()
    config.rl = _rl()
    config.preference = _preference()
    config.agent = _agent()
    config.online = _online()
    config.recovery = _recovery()
    config.player = _player()
    config.eval = _eval()
    config.suite = _suite()
    config.tools = _tools()
    config.baselines = _baselines()
    config.environment = _environment()
    config.engine = _engine()
    config.teacher = _teacher()
    config.audit = ml_collections.ConfigDict(
        {"rot": "", "replay": False}  # file or pattern of RoT records to audit; play them again and compare
    )
    config.checkpoint = ml_collections.ConfigDict({"every": 200, "keep": 2})  # updates; checkpoints kept per stage
    return config.lock()


def _data() -> ml_collections.ConfigDict:
    data = ml_collections.ConfigDict()
    data.source = ""  # of the data stage: "toolrepair", a JSON file of trajectories, or the folder of an evaluation run
    data.rot = ""  # RoT records (JSON array or JSONL, the authors' schema)
    data.clean = ""  # clean MAT / MM-Traj trajectories, likewise
    data.eval_rot = ""  # held-out RoT records of the eval stage; "" takes data.rot
    data.on_bad_record = "skip"  # "skip": name it and go on; "fatal": name it and stop
    data.conditioning = "paper"  # "paper": repairs follow the failed action and its observation; "release": they don't
    data.train_end_of_turn = True  # train the token that closes a turn; the authors' release does not
    data.max_length = 1024  # tokens of a supervised example; a longer one is a bad record, nothing is ever cut
    data.prefix_buckets = (256, 512, 1024)  # padded lengths of a group's prefix, in tokens
    data.branch_buckets = (128, 256, 512)  # padded lengths of a branch, in tokens
    data.min_pixels = 4 * 28 * 28  # an image is enlarged to as many pixels; the model's own minimum counts if larger
    data.max_pixels = 512 * 28 * 28  # an image is shrunk to as many pixels; the model's own maximum counts if smaller
    data.curriculum = "none"  # RoT records in play: "none" all, "linear" and "success-paced" the easiest first
    data.curriculum_start = 0.3  # share of them in play at a stage's first update
    data.curriculum_full = 0.5  # "linear": share of the stage's updates after which all are in play
    data.curriculum_success = 0.8  # "success-paced": mean success of a window that brings the next tenth into play
    data.curriculum_window = 20  # "success-paced": measured updates of a window
    return data


def _model() -> ml_collections.ConfigDict:
    model = ml_collections.ConfigDict()
    model.path = ""  # local Hugging Face directory: Qwen2-VL, Qwen2.5-VL, Qwen2, Qwen2.5; "" is the tiny preset
    model.images = True  # tiny preset: with a vision tower
    model.vocab_size = 1000  # tiny preset: tokens of the BPE that is trained on the corpus
    model.hidden_size = 128  # tiny preset
    model.num_layers = 4  # tiny preset
    # "auto" is decided by the size of the model, see model_defaults.py; the run's config.json says how.
    model.dtype = "auto"  # what is computed in: "float32" or "bfloat16"
    model.param_dtype = "auto"  # of weights that are frozen or exported; what is trained is float32 whatever this says
    model.remat = "auto"  # recomputed in the backward pass: "full" layers, "dots" all but products with weights, "none"
    model.attention = "auto"  # of whole sequences: "xla", "cudnn" (GPU), "splash" (TPU); "auto" takes the device's best
    model.quantize = "none"  # frozen kernels under an adapter: "int8", or "nf4" (four bits, as QLoRA has them)
    model.logprob_chunk = 0  # tokens that meet the vocabulary at once; 0 makes it about 16 million logits
    return model


def _lora() -> ml_collections.ConfigDict:
    lora = ml_collections.ConfigDict()
    lora.path = ""  # adapter in PEFT's format to start from, which decides ranks and targets; "" starts a fresh one
    lora.rank = 8  # inner width of the adapter
    lora.alpha = 16.0  # scale is alpha / rank
    lora.dropout = 0.0  # share of an adapter's inputs that training sets to zero; the release took 0.05
    lora.targets = ("q_proj", "k_proj", "v_proj", "o_proj")  # decoder projections that get one
    lora.last_layers = 0  # of the decoder, those that learn; 0 for all
    lora.vision_rank = 0  # inner width in the vision tower; 0 leaves the tower frozen
    lora.vision_alpha = 16.0  # scale there is vision_alpha / vision_rank
    lora.vision_targets = ("qkv", "proj")  # projections of the tower's blocks that get one
    return lora


def _optimizer(learning_rate: float, steps: int) -> ml_collections.ConfigDict:
    stage = ml_collections.ConfigDict()
    stage.steps = steps  # updates
    stage.microbatches = 1  # a batch is visited in this many parts (gradient accumulation)
    stage.learning_rate = learning_rate  # peak of AdamW's
    stage.warmup_steps = 20  # updates of linear warm-up, then a cosine
    stage.final_learning_rate_share = 0.1  # of the peak, at the last update
    stage.weight_decay = 0.0  # AdamW's
    stage.beta2 = 0.98  # AdamW's second-moment decay
    stage.clip_norm = 1.0  # largest global norm of the gradient
    return stage


def _sft() -> ml_collections.ConfigDict:
    sft = _optimizer(learning_rate=2e-3, steps=1000)
    sft.trainable = "auto"  # "full" weights or "lora" adapter; "auto" as in model
    sft.clean_ratio = 0.5  # share of clean examples; the rest are RoT
    sft.batch_rows = 16  # packed rows of an update
    sft.row_length = 512  # tokens of a packed row
    sft.row_patches = 128  # image patches of a packed row, a multiple of those of an image token (4 in all Qwen2-VL)
    return sft


def _rl() -> ml_collections.ConfigDict:
    rl = _optimizer(learning_rate=2e-4, steps=200)
    rl.trainable = "lora"  # "lora": exported to adapter/; "full" trains all weights
    rl.groups_per_batch = 8  # contrastive groups of an update, five branches each
    rl.lambda_exec = 1.0  # weight of success in the reward
    rl.eta = 0.1  # price of 100 reflection tokens, in units of reward
    rl.lambda_val = 0.0  # weight of the verifier's value V (the paper also reports 0.3)
    rl.beta = 0.04  # weight of the KL to the reference, which is the policy after the warm start
    rl.kl_estimator = "k3"  # k1 | k2 | k3 | k3_release, see core/kl.py; the release trains with k1
    rl.baseline = "mean"  # "mean" | "leave_one_out"
    rl.normalize_advantages = False  # divide by the group's standard deviation
    rl.advantage_clip = config_dict.placeholder(float)  # bound on |A|; None for no bound
    rl.two_stream_alpha = config_dict.placeholder(float)  # weight of a separate verifier stream; None for one stream
    rl.length_normalize = False  # mean instead of sum of a branch's token log-probs
    rl.zero_variance = "skip"  # groups without variance: "skip" them, or "keep_kl" to hold them near the reference
    return rl


def _preference() -> ml_collections.ConfigDict:
    preference = _optimizer(learning_rate=2e-4, steps=200)
    preference.trainable = "lora"  # "lora": exported to adapter/; "full" trains all weights
    preference.pairs_per_batch = 16  # (corrected, failed) actions of an update
    preference.beta = 0.1  # how dearly the distance from the policy before the stage is paid for
    return preference


def _agent() -> ml_collections.ConfigDict:
    agent = ml_collections.ConfigDict()
    agent.gate = "failure"  # a reflection is opened after: a "failure"; failures and low confidence, "paper"; "never"
    agent.timing = "post"  # "pre" also holds an action of low confidence back and reflects before it runs
    agent.retries = 1  # failed attempts of a step that are allowed, as in the paper's local trajectory
    agent.max_steps = 8  # actions of an episode
    agent.turn_tokens = 96  # sampled in one turn, at most
    agent.episode_tokens = 384  # sampled in an episode, at most
    return agent


def _online() -> ml_collections.ConfigDict:
    online = _optimizer(learning_rate=2e-4, steps=40)
    online.trainable = "auto"  # "full" weights or "lora" adapter; "auto" as in model
    online.algorithm = "regrpo"  # "regrpo" reflects after failures; "grpo" retries without; "none" trains nothing
    online.tasks = 16  # groups of an update
    online.branches = 8  # episodes of a group
    online.collect_seconds = config_dict.placeholder(float)  # of all actions of an update, then it stops; None: any
    online.refills = 0  # further rounds that are played while too few groups have anything to prefer
    online.forced_failures = 0.0  # share of tasks that start after a failed first action; reported apart
    online.middle_states = 0.0  # share of the others that start in the middle of an episode of the update before
    online.near_misses = 0.0  # share that start after an action that failed there; both are reported apart
    online.staleness = 0  # updates that the policy which plays lags behind, so that it can play meanwhile; 0: in turn
    online.replay = ""  # workdir of another run whose rollouts the updates repeat; "" plays
    online.success = "step"  # whose success a token is paid for: that of its "step", or of the whole "episode"
    online.first_attempt = "own"  # of a step: its "own" outcome pays it, it is a "condition" if it failed, or "shared"
    online.lambda_exec = 1.0  # weight of success in the reward
    online.eta = 0.1  # price of 100 reflection tokens, in units of reward
    online.lambda_val = 0.0  # weight of V: grounded evidence, and an action that is right
    online.beta = 0.01  # weight of the KL to the policy before the stage
    online.kl_estimator = "k3"
    online.baseline = "mean"  # "mean" | "leave_one_out"
    online.normalize_advantages = True  # divide by the group's standard deviation ..
    online.advantage_epsilon = 0.1  # .. plus this; a group that differs in the price of reflections alone weighs little
    online.advantage_clip = config_dict.placeholder(float)  # bound on |A|; None for no bound
    online.zero_variance = "skip"  # steps without variance: "skip" them, or "keep_kl"
    online.clip_low = 0.2  # how far a ratio may fall below 1
    online.clip_high = 0.28  # and rise above it
    online.weight_cap = config_dict.placeholder(float)  # largest importance weight of a stale rollout; None for none
    online.ratio_of = "token"  # what has a ratio of its own: a "token", or a whole "branch" (GSPO; wants small bounds)
    online.divide_by = "tokens"  # the loss: by its "tokens", or by the "budget" of its branches' tokens (Dr. GRPO)
    online.train_truncated = True  # episodes that ran out of tokens train too; if not, they are compared only (DAPO)
    online.epochs = 1  # optimizer steps on a batch
    return online


def _recovery() -> ml_collections.ConfigDict:
    recovery = ml_collections.ConfigDict()
    recovery.tasks = 192  # tasks of each split, of config.suite
    recovery.episodes = 2  # of each task
    recovery.splits = ("test",)  # "validation", "test": names in new combinations; "held_out": new tools and faults too
    recovery.seed = 7  # of tasks and sampling; the same for runs that are to be compared
    recovery.temperature = 1.0  # of the sampling
    recovery.bare_control = False  # play all once more with a bare retry in place of reflections
    recovery.tasks_at_once = 64  # tasks whose episodes are played together
    return recovery


def _player() -> ml_collections.ConfigDict:
    player = ml_collections.ConfigDict()
    player.base_url = ""  # an OpenAI-compatible server that plays, "http://localhost:8000/v1"; "" plays in this process
    player.model = ""  # its name there; config.model.path is the same model, needed for all but the stage recovery
    player.key_variable = ""  # environment variable that holds its key; "" for a server without one
    player.extended = True  # it takes what vLLM and SGLang add to the API; False for `transformers serve` and OpenAI
    player.timeout = 120.0  # seconds of a request
    player.retries = 4  # after a request that failed for a while
    player.concurrency = 16  # requests at the same time
    return player


def _eval() -> ml_collections.ConfigDict:
    evaluation = ml_collections.ConfigDict()
    evaluation.records = 200  # held-out records replayed, at most
    evaluation.batch = 50  # episodes decoded at once
    evaluation.max_new_tokens = 192  # of one assistant turn
    evaluation.temperature = 0.0  # 0 is greedy
    evaluation.top_k = 0  # tokens that are drawn from, the likeliest ones; 0 for all
    evaluation.top_p = 1.0  # share of the probability that is drawn from, the likeliest tokens; 1 for all
    return evaluation


def _suite() -> ml_collections.ConfigDict:
    suite = ml_collections.ConfigDict()
    suite.name = "toolrepair"  # what is played: "toolrepair", "folder" (of path), or "package.module:make_suite"
    suite.path = ""  # folder: holds tasks.jsonl and its files, see docs/your_own_task.md
    suite.system = ""  # first turn: a text file with {tools} in it, or "release" for the authors' words; "" for ours
    suite.brief = False  # folder: tools are told in few words, and reflections are short, for policies that read little
    suite.profile = "compact"  # toolrepair: "compact", short texts and cheap tools; "full", the toolbox's own tools
    suite.families = ()  # toolrepair: names of the families; () is all
    suite.difficulties = (1, 2, 3)  # toolrepair: in turn
    suite.surprises = 0.6  # toolrepair: share of tasks in which the natural first action fails
    return suite


def _tools() -> ml_collections.ConfigDict:
    tools = ml_collections.ConfigDict()  # of suites that have no tools of their own
    tools.builtin = ("all",)  # names of built-in tools, docs/tools.md has them; ("all",) takes all
    tools.user = ()  # "package.module:name" of typed functions, Tool classes or Tools
    tools.mcp = ()  # MCP servers, each "name=command with arguments" or "name=https://address"
    tools.gta_names = False  # GTA's names too
    tools.corpus = ""  # folder or .jsonl file that search looks through
    tools.vision = _endpoint()  # an OpenAI-compatible vision-language model, for visualizer and math_ocr
    tools.images = _endpoint()  # an OpenAI-compatible image model, for image_generator and text_to_image
    tools.search = _endpoint()  # a search engine in the place of the corpus
    return tools


def _endpoint() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"url": "", "model": "", "key_variable": ""})  # "" for none; its key's variable


def _baselines() -> ml_collections.ConfigDict:
    baselines = ml_collections.ConfigDict()
    baselines.policy = "oracle"  # who plays: "oracle", "never_repairs", "random"
    baselines.split = "test"  # "train", "validation", "test", or "held_out": tools and faults that training lacks
    baselines.tasks = 270  # tasks; config.seed decides which
    baselines.max_steps = 10  # turns of an episode, at most
    baselines.viewer_episodes = 50  # episodes that episodes.html shows, spread over the run
    return baselines


def _environment() -> ml_collections.ConfigDict:
    environment = ml_collections.ConfigDict()
    environment.workers = 2  # sandboxed processes that play at the same time; results do not depend on it
    environment.wall_seconds = 10.0  # of one action, then it is killed
    # Seconds that episodes wait for a slow action of another one; None: all wait, and a seed decides everything.
    environment.patience = config_dict.placeholder(float)
    environment.allow_unisolated = False  # run actions also where they cannot be isolated, never as root
    return environment


def _engine() -> ml_collections.ConfigDict:
    engine = ml_collections.ConfigDict()
    engine.records = 2000  # RoT records
    engine.clean = 0  # clean trajectories, executed as well
    engine.demonstrations = 0  # episodes of an agent whose skills are right and whose decisions are not always
    engine.diagnosis = "reflection"  # where they say what went wrong: in a "reflection" block, or in the "thought"
    engine.error_types = ml_collections.ConfigDict(  # their shares; the first four are the paper's
        {"GroundingDrift": 0.294, "ToolMismatch": 0.246, "ArgInvalid": 0.308, "InfoInsufficient": 0.152}
        | {"NonCommit": 0.0, "CodeError": 0.0}
    )
    engine.split = "train"  # of the suite: "train", "validation", "test", "held_out"
    engine.natural = 0.5  # share of failures that are the suite's own surprises, where a type has some
    engine.failures_only = False  # of a recorded run: only what the policy itself got wrong
    engine.proposer = "rules"  # who finds near misses: "rules", or "teacher" and rules
    engine.annotator = "rules"  # who writes reflections: "rules" need no network; "teacher" is config.teacher
    engine.synthetic = False  # make observations up where tools or files are not here; into files of their own
    engine.attempts = 40  # situations tried for a record, at most
    engine.shard_records = 1000  # records of a file
    return engine


def _teacher() -> ml_collections.ConfigDict:
    teacher = ml_collections.ConfigDict()
    teacher.base_url = ""  # an OpenAI-compatible chat API, such as "http://localhost:8000/v1"
    teacher.model = ""  # its name there
    teacher.key_variable = ""  # environment variable that holds its key; "" for a server without one
    teacher.images = False  # show it the task's pictures
    teacher.timeout = 120.0  # seconds of a request
    teacher.retries = 5  # after a request that failed for a while
    teacher.repairs = 2  # times that a wrong answer is sent back
    teacher.requests_per_minute = 60.0
    teacher.max_concurrency = 4  # requests at the same time
    teacher.most_requests = config_dict.placeholder(int)  # of the run, restarts included; None without limit
    teacher.most_dollars = config_dict.placeholder(float)  # likewise, at the prices below
    teacher.dollars_per_million_input_tokens = 0.0
    teacher.dollars_per_million_output_tokens = 0.0
    teacher.max_tokens = 1024  # of an answer
    teacher.temperature = 0.0
    return teacher
