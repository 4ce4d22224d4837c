"""The recovery network and its layers."""
