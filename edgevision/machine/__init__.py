"""What this machine is: CPU, GPU, driver, Jetson, installed packages."""
