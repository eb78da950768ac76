"""The architecture of Qwen2-VL; Qwen2.5-VL and the text models of both families are settings of it."""
