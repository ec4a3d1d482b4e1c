"""The engines that jobs run on: their options, what is checked before a job, what their failures mean."""
