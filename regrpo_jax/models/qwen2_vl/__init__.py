"""The architecture of Qwen2-VL; Qwen2.5-VL, Qwen3-VL and the text models of Qwen and Llama are settings of it."""
