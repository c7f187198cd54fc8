def test_x(make, observer):
    pass
