"""The architecture of Qwen2-VL; Qwen2.5-VL and the text models of Qwen2, Qwen3 and Llama are settings of it."""
