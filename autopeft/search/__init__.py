"""A study is run: candidates drawn, trained and pruned, and a winner selected."""
