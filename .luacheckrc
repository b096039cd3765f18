std = 'luajit'
max_line_length = 150
ignore = { '581' } -- not (x <= y) is how NaN is caught
files['spec'] = { std = 'luajit+busted' }
files['.busted'] = {}
