"""Text in and out of the model: the tokenizer and the chat frame around what it reads."""
