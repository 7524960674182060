"""What is asked of every post besides the safety policy; no policy can switch these off."""
